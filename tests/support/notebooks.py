"""Runs notebooks as a reader would, in a kernel of their own: `python -m tests.support.notebooks [FILE...]`.

The command writes their outputs into them; it needs what `requirements-docs.txt` lists beside `requirements.txt`.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def run(path: Path, seconds: int | None = None) -> Any:
    """The notebook with its outputs.

    Args:
        path: the notebook.
        seconds: after which a cell counts as hanging; None: never.

    Raises:
        CellExecutionError: a cell raised.
        CellTimeoutError: a cell hung.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))  # of the kernel
    try:
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": folder}}).execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return notebook


def printed(notebook: Any) -> str:
    """What its cells printed to standard output."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def tidy(notebook: Any) -> dict[str, Any]:
    """The notebook as it is committed: what cells print, their values and PNG pictures; without progress and times."""
    cells = []
    for number, cell in enumerate(notebook.cells):
        kept: dict[str, Any] = {"cell_type": cell.cell_type, "id": f"cell-{number}", "metadata": {}}
        if cell.cell_type == "code":
            outputs = [_tidy_output(output) for output in cell.outputs if _is_kept(output)]
            kept |= {"execution_count": cell.execution_count, "outputs": outputs}
        cells.append(kept | {"source": cell.source.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _is_kept(output: Any) -> bool:
    if output.output_type == "display_data":  # text is progress, which rich shows so
        return "image/png" in output.data
    return output.get("name") != "stderr"


def _tidy_output(output: Any) -> dict[str, Any]:
    if output.output_type == "stream":
        return {"name": "stdout", "output_type": "stream", "text": output.text.splitlines(keepends=True)}
    kept = {kind: output.data[kind] for kind in ("image/png",) if kind in output.data} or {
        "text/plain": output.data["text/plain"].splitlines(keepends=True)
    }
    extra = {"execution_count": output.execution_count} if output.output_type == "execute_result" else {}
    return {"data": kept, "metadata": {}, "output_type": output.output_type} | extra


def main(names: Sequence[str]) -> int:
    """Runs notebooks, all of them by default, and writes their outputs."""
    for path in [Path(name).resolve() for name in names] or NOTEBOOKS:
        path.write_text(json.dumps(tidy(run(path)), indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size:,} bytes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
