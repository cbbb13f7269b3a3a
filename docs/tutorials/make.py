"""Run the tutorials and write them as notebooks with their outputs: `python docs/tutorials/make.py [NAME ...]`.

Needs the extra `docs`. The sources are the .py files here, in jupytext's percent format.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

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
            # Progress bars and warnings of libraries depend on the machine.
            cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]
    language = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": language, "language_info": {"name": "python"}}
    jupytext.write(notebook, source.with_suffix(".ipynb"), fmt="ipynb")


if __name__ == "__main__":
    for path in sorted(HERE.glob("[0-9]-*.py")):
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            make(path)
