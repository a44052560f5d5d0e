"""A run's directory as files of at most 15 MB, which `accelerator.py` leaves and takes (`--checkpoint`)."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from trxl_jax.errors import UserError

_PART_BYTES = 15_000_000


def pack(run: Path, path: Path) -> list[Path]:
    """Writes a run, without TensorBoard's events, as files PATH.00, PATH.01 and so on of at most 15 MB."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(run, ".", filter=lambda member: None if "events.out" in member.name else member)
    data = buffer.getvalue()
    for old in path.parent.glob(f"{path.name}.[0-9][0-9]"):
        old.unlink()
    parts = []
    for i in range(0, len(data), _PART_BYTES):
        part = path.with_name(f"{path.name}.{i // _PART_BYTES:02d}")
        part.write_bytes(data[i : i + _PART_BYTES])
        parts.append(part)
    return parts


def unpack(parts: Sequence[Path], run: Path) -> None:
    """Inverse of `pack`.

    Raises:
        UserError: a part is missing, or they are no run.
    """
    try:
        data = b"".join(part.read_bytes() for part in sorted(parts))
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            archive.extractall(run, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--checkpoint: can't be unpacked ({reason}); name all files checkpoint.tar.gz.*") from None
    if not (run / "config.json").is_file():
        raise UserError("--checkpoint: it holds no run; name all files checkpoint.tar.gz.* of an earlier call")
