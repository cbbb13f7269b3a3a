"""Run the tutorials and write them as notebooks with their outputs: `python docs/tutorials/make.py [NAME ...]`.

Needs the extra `docs`. The sources are the .py files here, in jupytext's percent format.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
from nbclient import NotebookClient

HERE = Path(__file__).parent


def make(source: Path) -> None:
    """Run one source in an empty folder and write its notebook beside it."""
    notebook = jupytext.read(source)
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem}-{number}"  # the same at every run
        cell["metadata"] = {}
        if cell.cell_type == "code":
            cell["outputs"] = [o for o in cell["outputs"] if is_kept(o)]
    language = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": language, "language_info": {"name": "python"}}
    jupytext.write(notebook, source.with_suffix(".ipynb"), fmt="ipynb")


def is_kept(output: dict[str, Any]) -> bool:
    """Return whether an output is a result: progress bars and warnings of libraries depend on the machine."""
    is_bar = output["output_type"] == "display_data" and "image/png" not in output["data"]
    return not is_bar and output.get("name") != "stderr"


if __name__ == "__main__":
    for path in sorted(HERE.glob("[0-9]-*.py")):
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            make(path)
