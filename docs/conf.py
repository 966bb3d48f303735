"""The site of docs/, for Sphinx. `make docs` builds it; a warning fails, nothing is fetched."""

import re
from importlib.metadata import version as version_of

project = "jataug"
author = "The jataug authors"
copyright = "The jataug authors, Apache-2.0"
version = release = version_of("jataug")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures"]
suppress_warnings = ["misc.highlighting_failure"]

myst_heading_anchors = 3
myst_links_external_new_tab = True

html_theme = "furo"
html_title = f"jataug {release}"
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "native"

# The frameworks that only one loader each needs, so that the site builds without them.
autodoc_mock_imports = ["albumentations", "datasets", "grain", "jax", "tensorflow"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "imported-members": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "code"  # `x` in a docstring


def outside(app, name: str, text: list[str]) -> None:
    """Links to pages outside docs/ (the README, results of benchmarks) are files to download."""
    text[0] = re.sub(r"\]\((\.\./[^)\s]+\.md)\)", r"](path:\1)", text[0])


def plain(app, what, name, thing, options, lines: list[str]) -> None:
    """Docstrings are plain text: an asterisk is an asterisk."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app) -> None:
    app.connect("source-read", outside)
    app.connect("autodoc-process-docstring", plain, priority=100)  # before napoleon
