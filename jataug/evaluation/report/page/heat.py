"""The map of accuracy against both radii."""

from ..contents import Map, Rate
from .chart import WIDTH, Chart, Shape, shape
from .numbers import count_of, interval, percent, radius

__all__ = ["heat_chart"]

_LEFT, _TOP, _BOTTOM, _ROW = 66, 8, 44, 40
_LIGHT, _DARK = (0xF3, 0xF0, 0xE4), (0x0B, 0x3C, 0x6F)
"""Accuracy 0 and 1: one hue, and lightness alone tells them apart."""

_SWITCH = 0.665
"""The accuracy above which white letters have more contrast than black ones."""


def heat_chart(name: str, model: str, found: Map, flow: float, pixel: float) -> Chart:
    """Return a cell a pair of radii, with its value; the cell of the budgets is outlined."""
    rows, columns = len(found.flow), len(found.pixel)
    width = (WIDTH - _LEFT - 4) / max(1, columns)
    height = _TOP + rows * _ROW + _BOTTOM
    drawn = []
    for i, flow_radius in enumerate(found.flow):
        y = _TOP + (rows - 1 - i) * _ROW
        text = f"{flow_radius:.3g}"
        drawn.append(shape("text", text, x=_LEFT - 8, y=y + _ROW / 2 + 4, class_="tick end"))
        for j, pixel_radius in enumerate(found.pixel):
            x, rate = _LEFT + j * width, found.accuracy[i][j]
            drawn += _cell(x, y, width, rate, _where(flow_radius, pixel_radius))
            if (flow_radius, pixel_radius) == (flow, pixel):
                inner = shape(
                    "rect", x=x + 2, y=y + 2, width=width - 4, height=_ROW - 4, class_="budget"
                )
                drawn.append(inner)
    floor = _TOP + rows * _ROW
    for j, pixel_radius in enumerate(found.pixel):
        text = f"{round(255 * pixel_radius, 2):g}"
        middle = _LEFT + (j + 0.5) * width
        drawn.append(shape("text", text, x=middle, y=floor + 17, class_="tick middle"))
    middle = _LEFT + columns * width / 2
    title = "pixel radius, levels of 255 (linf)"
    drawn.append(shape("text", title, x=middle, y=floor + 36, class_="middle"))
    across = f"translate(14 {_TOP + rows * _ROW / 2:g}) rotate(-90)"
    drawn.append(shape("text", "flow radius, px", transform=across, class_="middle"))
    return Chart(
        name, f"{model}: accuracy under flow and pixels together", _in_words(found), drawn,
        height=height,
    )  # fmt: skip


def _cell(x: float, y: float, width: float, rate: Rate, where: str) -> list[Shape]:
    told = f"{where}: {percent(rate.value)} ({interval(rate)}, {count_of(rate)})"
    ink = "on-dark" if rate.value > _SWITCH else "on-light"
    return [
        shape(
            "rect", title=told, x=x + 1, y=y + 1, width=width - 2, height=_ROW - 2,
            rx=3, fill=_colour(rate.value),
        ),
        shape("text", percent(rate.value)[:-1], x=x + width / 2, y=y + _ROW / 2 + 4,
                class_=f"middle cell {ink}"),
    ]  # fmt: skip


def _colour(share: float) -> str:
    mixed = (round(a + (b - a) * share) for a, b in zip(_LIGHT, _DARK, strict=True))
    return "#" + "".join(f"{level:02x}" for level in mixed)


def _where(flow: float, pixel: float) -> str:
    return f"flow {radius(flow, 'pixels')}, pixels {radius(pixel, 'image')}"


def _in_words(found: Map) -> str:
    return "; ".join(
        f"{_where(flow, pixel)}: {percent(found.accuracy[i][j].value)}"
        for i, flow in enumerate(found.flow)
        for j, pixel in enumerate(found.pixel)
    )
