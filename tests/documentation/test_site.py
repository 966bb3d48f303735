"""The site of docs/: it builds without a warning, and what it shows is what is there."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documentation.pages import PAGES, ROOT, text_of
from PIL import Image

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def script(path: str):
    """A module of docs/, by its file."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.heavy
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "trees", DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    page = (tmp_path / "html" / "api.html").read_text(encoding="utf-8")
    for module in public_modules():
        names = importlib.import_module(module).__all__
        missing = [n for n in names if f'id="{module}.{n}"' not in page and not shown(n, page)]
        assert missing == [], module


def shown(name: str, page: str) -> bool:
    """Whether a name is on the page under jataug itself."""
    return f'id="jataug.{name}"' in page


def public_modules() -> list[str]:
    found = re.findall(r"^\.\. automodule:: (\S+)$", text_of("docs/api.md"), re.M)
    return [name for name in found if hasattr(importlib.import_module(name), "__all__")]


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"^(\w+)$", "\n".join(toctrees()), re.M)
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert sorted(set(listed) - {"self"}) == sorted(pages)
    assert len(listed) == len(set(listed))


def toctrees() -> list[str]:
    return re.findall(r"```\{toctree\}\n(.*?)```", text_of("docs/index.md"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for link in LINK.findall(text_of(page)):
        path = link.partition("#")[0]
        if path and not re.match(r"https?:", path):
            assert (folder / path).exists(), f"{page}: {link}"


def test_the_arrows_are_those_of_the_test() -> None:
    arrows = script("docs/arrows.py")
    text = text_of("docs/architecture.md")
    assert arrows.with_table(text, arrows.table()) == text, "run python docs/arrows.py"
    assert "| `export/` |" in text


def test_the_places_on_the_architecture_page_are_there() -> None:
    text = text_of("docs/architecture.md")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    paths = {
        path for row in rows for path in re.findall(r"`((?:jataug|export|tests|cli)/[^`]*)`", row)
    }
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not list(ROOT.glob(path.rstrip("/")))] == []


def test_the_pictures_are_made_by_the_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "pictures" / "make.py", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kept = {path.name for path in (DOCS / "pictures").glob("*.png")}
    assert {path.name for path in tmp_path.glob("*.png")} == kept
    assert kept == set(re.findall(r"\(pictures/(\w+\.png)\)", text_of("docs/pictures.md")))
    for name in kept:
        with Image.open(tmp_path / name) as made, Image.open(DOCS / "pictures" / name) as old:
            assert made.size == old.size
