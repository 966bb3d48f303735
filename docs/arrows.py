"""Write the table of docs/architecture.md from tests/test_architecture.py, which holds the arrows.

python docs/arrows.py
"""

import ast
import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- arrows: python docs/arrows.py -->", "<!-- end of the arrows -->"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_table(text, table()), encoding="utf-8")


def with_table(text: str, rows: str) -> str:
    """The page with the table between its two marks replaced."""
    block = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return block.sub(lambda _: f"{BEGIN}\n\n{rows}\n\n{END}", text)


def table() -> str:
    """A row a part: what it is, what it may import of jataug, and from whom else."""
    rules = load(ROOT / "tests" / "test_architecture.py")
    rows = ["| part | what it is | may import | packages |", "|---|---|---|---|"]
    for name in rules.ARROWS:
        if name in rules.FOUNDATION or name == "jataug":
            continue
        arrows = rules.ARROWS[name] - rules.SHARED - {name}
        every = len(arrows) == len(rules.ARROWS) - len(rules.SHARED) - 1
        said = "everything" if every else ", ".join(sorted(arrows)) or "-"
        packages = ", ".join(sorted(rules.THIRD_PARTIES[name] - {"google"}, key=str.lower))
        rows.append(f"| `{place(name)}` | {what(name)} | {said} | {packages} |")
    return "\n".join(rows)


def place(name: str) -> str:
    """The folder of a part."""
    return f"{name}/" if (ROOT / name).is_dir() else f"jataug/{name}/"


def what(name: str) -> str:
    """The first sentence of a part's own docstring."""
    source = (ROOT / place(name) / "__init__.py").read_text(encoding="utf-8")
    told = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return told.partition(": ")[0].rstrip(".:") if len(told) > 90 else told.rstrip(".")


def load(path: Path):
    """A module by its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
