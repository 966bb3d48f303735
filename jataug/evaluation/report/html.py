"""report.html: everything an evaluation found, in one file that needs nothing else."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from ...atomic import write_file
from .contents import Report, load_report
from .page.document import document
from .page.subject import Page

__all__ = ["html_page", "write_html"]

Given = Report | str | PathLike[str]


def html_page(
    reports: Given | Sequence[Given], galleries: str | PathLike[str] | None = None
) -> str:
    """Return the page of one or more reports; the same reports give the same text.

    Args:
        reports: a Report, the path of a report.json, or several of these, on the same images and
            budgets; their models stand side by side.
        galleries: the folder of the galleries' files; default that of each report.json. For a
            Report without a folder there are no pictures.

    Raises:
        DataError: a report or a gallery cannot be read, or the reports cannot be compared.
    """
    return document(Page([_opened(report, galleries) for report in _several(reports)]))


def write_html(
    reports: Given | Sequence[Given],
    path: str | PathLike[str],
    galleries: str | PathLike[str] | None = None,
) -> None:
    """Write html_page(reports) to `path`, whole or not at all.

    Args:
        reports: see html_page.
        path: of the .html file; what is there is replaced.
        galleries: see html_page; for a Report the default is the folder of `path`.

    Raises:
        DataError: as html_page, and where the file cannot be written.
    """
    target = Path(path)
    beside = target.parent if galleries is None else galleries
    found = [
        _opened(report, beside if isinstance(report, Report) else galleries)
        for report in _several(reports)
    ]
    write_file(target, document(Page(found)).encode("utf-8"))


def _several(reports: Given | Sequence[Given]) -> list[Given]:
    return [reports] if isinstance(reports, (Report, str, PathLike)) else list(reports)


def _opened(report: Given, galleries: str | PathLike[str] | None) -> tuple[Report, Path | None]:
    if isinstance(report, Report):
        return report, None if galleries is None else Path(galleries)
    return load_report(report), Path(report).parent if galleries is None else Path(galleries)
