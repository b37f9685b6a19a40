"""Run every notebook and store what it shows: `.venv/bin/python notebooks/refresh.py`.

Kept are the results of the cells. Left out is what differs from run to run or machine to machine: times, and what libraries say on
standard error.
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient


def refresh(path: Path) -> None:
    """Run one notebook, in its own folder, and store it with its results. Raises: CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
            for output in cell.outputs:
                if "text/markdown" in output.data:
                    output.data.pop("text/plain", None)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    for found in sorted(Path(__file__).parent.glob("*.ipynb")):
        refresh(found)
