"""Notebooks without Jupyter: their code cells are run in order, in one namespace.

python tests/documentation/notebooks.py examples/*.ipynb     # run, and store the outputs
"""

import ast
import base64
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["code_cells", "execute"]


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Run every code cell here; return the outputs of each, as Jupyter stores them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_run("".join(cell["source"]), names) for cell in code_cells(notebook)]


def _run(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    tree, said = ast.parse(source), io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(said):
        exec(compile(tree, "cell", "exec"), names)
        value = (
            None
            if last is None
            else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        )
    outputs: list[dict[str, Any]] = []
    if said.getvalue():
        text = said.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        outputs.append({"data": _shown(value), "metadata": {}, "output_type": "display_data"})
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """A picture as PNG, anything else as text."""
    if not hasattr(value, "_repr_png_"):
        return {"text/plain": repr(value).splitlines(keepends=True)}
    picture = base64.b64encode(value._repr_png_()).decode()
    return {"image/png": picture, "text/plain": ["<PIL.Image.Image>"]}


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        place = path.resolve()
        notebook = json.loads(place.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            made = execute(notebook)
        for number, (cell, outputs) in enumerate(zip(code_cells(notebook), made, strict=True), 1):
            cell["outputs"], cell["execution_count"] = outputs, number
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        place.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
