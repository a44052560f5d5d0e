"""Files of `torch.save`: what is in them arrives, and what they ask to be run is not."""

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.paths import GOLDEN
from tests.support.torch_archive import KINDS, Opcodes, Tensor, call, dumps, write
from trxl_jax.errors import CheckpointError
from trxl_jax.torch_import.archive import read_torch_file

NUMBERS = np.arange(24, dtype=np.float32)


def read_tensor(path: Path, tensor: Tensor, data: bytes, **kwargs: Any) -> np.ndarray:
    return read_torch_file(write(path / "file", dumps({"x": tensor}), {"0": data}, **kwargs))["x"]


def refusal(path: Path) -> str:
    """The one line that a file gets."""
    with pytest.raises(CheckpointError) as raised:
        read_torch_file(path)
    line = str(raised.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert line.isprintable()
    assert len(line) < 500
    return line


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Tensor("0", 24, (4, 6), (6, 1)), NUMBERS.reshape(4, 6)),
        (Tensor("0", 24, (6, 4), (1, 6)), NUMBERS.reshape(4, 6).T),
        (Tensor("0", 24, (2, 3), (6, 1), offset=8), NUMBERS.reshape(4, 6)[1:3, 2:5]),
        (Tensor("0", 24, (2, 2), (12, 3)), NUMBERS.reshape(4, 6)[::2, ::3]),
        (Tensor("0", 24, (4, 2, 3), (1, 12, 4)), NUMBERS.reshape(2, 3, 4).transpose(2, 0, 1)),
        (Tensor("0", 24, (), (), offset=23), NUMBERS[23]),
        (Tensor("0", 24, (2, 3), (0, 1)), np.broadcast_to(NUMBERS[:3], (2, 3))),
        (Tensor("0", 24, (24,), (1,), location="cuda:0"), NUMBERS),
    ],
)
def test_views_of_a_storage(tensor: Tensor, expected: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_tensor(tmp_path, tensor, NUMBERS.tobytes()), expected, strict=True)


@pytest.mark.parametrize("dtype", sorted(set(KINDS) - {"bfloat16"}))
@pytest.mark.parametrize("order", ["little", "big", None])
def test_numbers_of_every_kind_in_either_byte_order(dtype: str, order: str | None, tmp_path: Path) -> None:
    values = np.array([0, 1, 100, 3], dtype)
    data = values.astype(values.dtype.newbyteorder(">" if order == "big" else "<")).tobytes()
    found = read_tensor(tmp_path, Tensor("0", 4, (2, 2), (2, 1), dtype=dtype), data, byteorder=order)
    np.testing.assert_array_equal(found, values.reshape(2, 2), strict=True)


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)  # exact in 8 bits
    for order, sign in (("little", "<"), ("big", ">")):
        data = (values.view(np.uint32) >> 16).astype(f"{sign}u2").tobytes()
        found = read_tensor(tmp_path, Tensor("0", 4, (4,), (1,), dtype="bfloat16"), data, byteorder=order)
        np.testing.assert_array_equal(found, values, strict=True)


def test_tensors_share_a_storage_and_can_not_be_written_to(tmp_path: Path) -> None:
    halves = [Tensor("0", 24, (12,), (1,)), Tensor("0", 24, (12,), (1,), offset=12), Tensor("0", 24, (24,), (1,))]
    content = dumps({"halves": halves, "parameter": call("torch._utils _rebuild_parameter", halves[2], True, {})})
    found = read_torch_file(write(tmp_path / "file", content, {"0": NUMBERS.tobytes()}))
    first, second, both = found["halves"]
    np.testing.assert_array_equal(np.concatenate([first, second]), both)
    np.testing.assert_array_equal(found["parameter"], NUMBERS)
    assert np.shares_memory(first, both)
    with pytest.raises(ValueError, match="read-only"):
        both[0] = 1


def test_containers_and_plain_values(tmp_path: Path) -> None:
    content = {"a": [1, -2, 2**40, -(2**40), 0.5], "b": (None, True, False), "ü": {"": "\n"}, "c": [], "d": {}}
    assert read_torch_file(write(tmp_path / "file", dumps(content), {})) == content


def test_a_state_dict_with_attributes() -> None:
    """As PyTorch wrote it: an OrderedDict with `_metadata`."""
    content = read_torch_file(GOLDEN / "ProofofMemory-v0_seed1.nn")
    assert list(content) == ["model_weights", "args"]
    assert content["model_weights"]["encoder.weight"].shape == (64, 3)
    assert content["args"]["env_id"] == "ProofofMemory-v0"
    assert "torch" not in sys.modules


class Runs:
    """Pickled, a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def malicious(target: Path) -> list[bytes]:
    touch = f"touch {target}"
    code = f"open({str(target)!r}, 'w')"
    calls = [
        Runs(os.system, touch),
        Runs(eval, code),
        Runs(exec, code),
        Runs(subprocess.call, ["touch", str(target)]),
        Runs(open, str(target), "w"),
    ]
    pickles = [pickle.dumps({"model_weights": call}, protocol) for call in calls for protocol in (0, 2, 4)]
    reached = Opcodes(b"ccollections\nOrderedDict.fromkeys\n")
    pickles += [
        b"\x80\x02" + b"(S'" + touch.encode() + b"'\nios\nsystem\n.",  # INST
        b"\x80\x02" + b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",  # OBJ
        b"\x80\x02" + b"\x82\x01.",  # a registered extension
        dumps(call("torch._utils _rebuild_tensor_v2", Opcodes(b"cos\nsystem\n"), touch, (), ())),
        dumps(call("torch load", touch)),
        dumps(call("builtins getattr", {}, "__class__")),
        dumps(call("collections OrderedDict", [touch])),
        dumps(Opcodes(reached + dumps((touch,))[2:-1] + b"R")),
        dumps(Opcodes(b"ctorch._utils\n_rebuild_tensor_v2\n" + dumps({"__code__": 1})[2:-1] + b"b")),
        dumps(Opcodes(dumps(("storage", Opcodes(b"cos\nsystem\n"), "0", "cpu", 1))[2:-1] + b"Q")),
    ]
    return pickles


def test_nothing_is_run(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    pickle.loads(malicious(target)[1])
    assert target.exists()
    target.unlink()
    for pickled in malicious(target):
        refusal(write(tmp_path / "file", pickled, {"0": bytes(4)}))
        assert not target.exists()
    assert "'posix.system'" in refusal(write(tmp_path / "file", malicious(target)[1], {}))


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("0", 24, (25,), (1,)),
        Tensor("0", 24, (4, 6), (7, 1)),
        Tensor("0", 24, (4,), (1,), offset=21),
        Tensor("0", 24, (1,), (1,), offset=2**70),
        Tensor("0", 24, (4,), (1,), offset=-1),
        Tensor("0", 24, (2, 2), (1, -1), offset=4),
        Tensor("0", 24, (-2, -2), (1, 1)),
        Tensor("0", 24, (2, 2), (1,)),
        Tensor("0", 24, (2**40,), (0,)),  # 4 TB from 96 bytes
        Tensor("0", 24, (0, 2**62), (1, 1)),
        Tensor("0", 24, (1,) * 70, (1,) * 70),
        Tensor("0", 24, ("2", 2), (2, 1)),  # type: ignore[arg-type]
        Tensor("0", 24, 24, 1),  # type: ignore[arg-type]
        Tensor("0", 25, (24,), (1,)),
        Tensor("0", -24, (24,), (1,)),
        Tensor("0", 2**40, (24,), (1,)),
        Tensor("0", 24, (24,), (1,), dtype="float64"),
        Tensor("1", 24, (24,), (1,)),
        Tensor("../data.pkl", 24, (24,), (1,)),
    ],
)
def test_tensors_that_reach_beyond_their_storage(tensor: Tensor, tmp_path: Path) -> None:
    refusal(write(tmp_path / "file", dumps({"x": tensor}), {"0": NUMBERS.tobytes()}))


def test_bombs(tmp_path: Path) -> None:
    deflated = {"compression": zipfile.ZIP_DEFLATED}
    tensor = dumps({"x": Tensor("0", 2**24, (2**24,), (1,))})
    assert "compressed" in refusal(write(tmp_path / "file", tensor, {"0": bytes(2**26)}, **deflated))
    assert "data.pkl" in refusal(write(tmp_path / "file", b"\x80\x02" + b"N0" * 2**20 + b"N.", {}))
    # Lists of lists that share their parts: 2^60 numbers if anyone walked through them.
    lists = b"\x80\x02(]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)) + b"t."
    assert len(read_torch_file(write(tmp_path / "file", lists, {}))) == 61
    # The same of tuples, whose hash would walk, and one so deep that its hash would overflow the stack.
    tuples = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    for key in (tuples + b"}h\x3c", b"})" + b"\x85" * 500_000):
        assert "strings" in refusal(write(tmp_path / "file", b"\x80\x02" + key + b"Ns.", {}))
    # A memo that is a list would get as many places.
    assert read_torch_file(write(tmp_path / "file", b"\x80\x02Nr\xff\xff\xff\x7f.", {})) is None
    sized = Opcodes(tuples)
    refusal(write(tmp_path / "file", dumps({"x": Tensor("0", 1, sized, sized)}), {"0": bytes(4)}))  # type: ignore[arg-type]


def test_records_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    path = write(tmp_path / "file", dumps({"x": Tensor("0", 2**28, (2**28,), (1,))}), {"0": bytes(64)})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"archive/data/0") - 46  # in the directory at the end
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**30, 2**30)
    path.write_bytes(data)
    assert "overlap" in refusal(path)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert "No such file" in refusal(file)
    assert "directory" in refusal(tmp_path)
    file.write_bytes(b"")
    refusal(file)
    file.write_bytes(b"not a checkpoint")
    assert "torch.save" in refusal(file)
    file.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))  # how files of older PyTorch begin
    assert "save it again" in refusal(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    assert "data.pkl" in refusal(file)
    assert "byte order" in refusal(write(file, dumps({}), {}, byteorder="middle"))
    assert "protocol 4" in refusal(write(file, pickle.dumps({"a": 1}, 4), {}))
    assert "'data/0' is missing" in refusal(write(file, dumps({"x": Tensor("0", 1, (1,), (1,))}), {}))


def test_damaged_files(tmp_path: Path) -> None:
    whole = (GOLDEN / "vector_discrete_none.nn").read_bytes()
    path = tmp_path / "file"
    for length in [*range(0, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 1
    path.write_bytes(middle)
    assert "copy it again" in refusal(path)


def test_pickles_with_random_bytes_end_in_a_line_or_in_a_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(GOLDEN / "vector_discrete_none.nn") as archive:
        pickled = archive.read("vector_discrete_none/data.pkl")
        storages = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if "/data/" in name}
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        mutant = bytearray(pickled)
        for place in random.integers(len(mutant), size=random.integers(1, 5)):
            mutant[place] = random.integers(256)
        path = write(tmp_path / "file", bytes(mutant), storages)
        try:
            read_torch_file(path)
        except CheckpointError:
            refused += 1
            refusal(path)
    assert refused > 100
