"""Make the notebook: `python tutorial/notebook.py` runs the tutorial and writes tutorial/tutorial.ipynb.

The cells run in this process, one after the other, without Jupyter: a cell's output is what it prints, and what its
last line shows.
"""

import ast
import base64
import io
import os
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from PIL import Image

SCRIPT = Path(__file__).with_name("tutorial.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")

COLORS = 128
"""Colors of a figure in the notebook, to keep the file small."""


def run(values: dict[str, Any]) -> nbformat.NotebookNode:
    """Run the script's cells with these global names, which it fills, and return the notebook with their outputs."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"display_name": "Python 3", "name": "python3"}})
    notebook.metadata.language_info = {"name": "python"}
    number = 0
    for place, cell in enumerate(jupytext.read(SCRIPT).cells):
        name = f"cell-{place}"
        if cell.cell_type == "markdown":
            notebook.cells.append(nbformat.v4.new_markdown_cell(cell.source, id=name))
            continue
        number += 1
        outputs = _outputs(cell.source, values, number)
        notebook.cells.append(nbformat.v4.new_code_cell(cell.source, id=name, execution_count=number, outputs=outputs))
    return notebook


def _outputs(source: str, values: dict[str, Any], number: int) -> list[nbformat.NotebookNode]:
    """Run one cell; returns what it printed, and the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), values)
        if last is not None:
            value = eval(compile(last, f"cell {number}", "eval"), values)
    outputs = []
    if printed.getvalue():
        outputs.append(nbformat.v4.new_output("stream", name="stdout", text=printed.getvalue()))
    if value is not None:
        shown = {"image/png": _small(value._repr_png_()), "text/plain": f"figure {value.path.stem}"}
        outputs.append(nbformat.v4.new_output("execute_result", shown, execution_count=number))
    return outputs


def _small(png: bytes) -> str:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def main() -> None:
    """Write the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUTORIAL_OUT"] = folder
        notebook = run({"__name__": "__main__"})
    nbformat.validate(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
