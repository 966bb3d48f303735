"""Charts as lists of SVG elements: axes, ticks and units, marks, labels that do not overlap.

The geometry is computed here; templates/charts.html writes the markup.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "SHARES",
    "Axis",
    "Chart",
    "Labels",
    "Plot",
    "Shape",
    "marker",
    "path",
    "shape",
    "style",
    "ticks",
]

WIDTH, HEIGHT = 380, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 16, 24, 44
_LETTER = 7.0
"""Width of a letter of a chart's text, in units of the drawing; a generous guess."""

COLOURS, _SHAPES, _DASHES = 7, 5, ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Shape:
    """One SVG element.

    Attributes:
        name: of the element.
        attributes: of the element.
        text: inside it.
        title: shown when the pointer rests on it.
    """

    name: str
    attributes: Mapping[str, str]
    text: str = ""
    title: str = ""


def shape(name: str, text: str = "", *, title: str = "", **attributes: str | float | None) -> Shape:
    """Return an element. Attribute names lose a final _, other _ become -; None leaves an attribute
    out, and numbers are rounded to hundredths.
    """
    given = {
        key.rstrip("_").replace("_", "-"): value
        if isinstance(value, str)
        else f"{round(value, 2):g}"
        for key, value in attributes.items()
        if value is not None
    }
    return Shape(name, given, text, title)


@dataclass(frozen=True)
class Chart:
    """A drawing, with its title and a description for people who cannot see it.

    Attributes:
        name: unique in the page.
        title: what it shows.
        description: what can be read from it, in words.
        shapes: what is drawn.
        height: in units of the drawing; the width is always the same.
    """

    name: str
    title: str
    description: str
    shapes: Sequence[Shape]
    height: float = HEIGHT
    width: float = WIDTH


@dataclass(frozen=True)
class Axis:
    """One axis from 0 to `top`.

    Attributes:
        title: with the unit.
        marks: where ticks are, and what they say.
    """

    title: str
    top: float
    marks: Sequence[tuple[float, str]]


def ticks(top: float, most: int = 6) -> list[float]:
    """Return at most `most` + 1 round numbers from 0 to `top`."""
    if not top > 0:
        return [0.0]
    step = 10.0 ** math.floor(math.log10(top / most))
    while top / step > most + 1e-9:
        lead = round(step / 10.0 ** math.floor(math.log10(step) + 1e-9), 6)
        step *= 2.5 if lead == 2 else 2
    return [k * step for k in range(int(top / step + 1e-9) + 1)]


SHARES = Axis("accuracy", 1.0, [(k / 5, f"{20 * k}%") for k in range(6)])


@dataclass(frozen=True)
class Plot:
    """The area that two axes span, in units of the drawing."""

    x_axis: Axis
    y_axis: Axis = SHARES

    def x(self, value: float) -> float:
        """Return where a value of the x axis lies."""
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / (self.x_axis.top or 1)

    def y(self, value: float) -> float:
        """Return where a value of the y axis lies."""
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / (self.y_axis.top or 1)

    @property
    def floor(self) -> float:
        """The lower end of the y axis."""
        return self.y(0)

    def axes(self) -> list[Shape]:
        """Return grid, axes, ticks and titles."""
        left, right, floor = self.x(0), self.x(self.x_axis.top), self.floor
        drawn = []
        for value, text in self.y_axis.marks:
            y = self.y(value)
            drawn.append(shape("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
            drawn.append(shape("text", text, x=left - 6, y=y + 4, class_="tick end"))
        for value, text in self.x_axis.marks:
            x = self.x(value)
            drawn.append(shape("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="axis"))
            drawn.append(shape("text", text, x=x, y=floor + 17, class_="tick middle"))
        drawn.append(shape("line", x1=left, x2=right, y1=floor, y2=floor, class_="axis"))
        middle = (left + right) / 2
        drawn.append(shape("text", self.x_axis.title, x=middle, y=HEIGHT - 8, class_="middle"))
        across = f"translate(12 {(floor + _TOP) / 2:g}) rotate(-90)"
        drawn.append(shape("text", self.y_axis.title, transform=across, class_="middle"))
        return drawn

    def flag(self, value: float, text: str) -> list[Shape]:
        """Return a dashed line across the plot at `value`, and what it is, above the plot."""
        x, room = self.x(value), _LETTER * len(text) / 2
        held = min(max(x, _LEFT + room - 20), WIDTH - room - 2)
        return [
            shape("line", x1=x, x2=x, y1=_TOP - 4, y2=self.floor, class_="flag back"),
            shape("line", x1=x, x2=x, y1=_TOP - 4, y2=self.floor, class_="flag"),
            shape("text", text, x=held, y=_TOP - 10, class_="middle tick"),
        ]


@dataclass
class Labels:
    """Places for the values beside points: a label that would meet another is left out."""

    plot: Plot
    _taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def block(self, x: float, y: float, reach: float = 5) -> None:
        """Keep labels off a point."""
        self._taken.append((x - reach, y - reach, x + reach, y + reach))

    def place(self, text: str, x: float, y: float) -> Shape | None:
        """Return a label above, below, or beside (x, y), or None where there is no room."""
        half = _LETTER * len(text) / 2
        for dx, dy in ((half + 2, -9), (half + 8, 4), (0, -12), (half + 2, 18), (-half - 8, 15)):
            box = (x + dx - half, y + dy - 10, x + dx + half, y + dy + 3)
            if self._is_free(box):
                self._taken.append(box)
                return shape("text", text, x=x + dx, y=y + dy, class_="middle value")
        return None

    def _is_free(self, box: tuple[float, float, float, float]) -> bool:
        inside = (
            box[0] > _LEFT + 2 and box[2] < WIDTH and box[1] > _TOP - 6 and box[3] < self.plot.floor
        )
        return inside and all(
            box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in self._taken
        )


def path(points: Sequence[tuple[float, float]], class_: str, dashes: str | None) -> Shape:
    """Return a line through points."""
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return shape("path", d=f"M{way}", class_=class_, stroke_dasharray=dashes)


def style(number: int) -> tuple[str, str | None]:
    """Return the class (colour) and the dashes of the lines of model `number`."""
    return f"m{number % COLOURS}", _DASHES[number % len(_DASHES)] or None


def marker(number: int, x: float, y: float, title: str = "") -> Shape:
    """Return the mark of model `number`: shapes tell models apart where colours do not."""
    colour = f"mark {style(number)[0]}"
    kind = number % _SHAPES
    if kind == 0:
        return shape("circle", title=title, cx=x, cy=y, r=4, class_=colour)
    if kind == 1:
        return shape("rect", title=title, x=x - 3.5, y=y - 3.5, width=7, height=7, class_=colour)
    corners = (
        ((0, -5), (4.5, 3.5), (-4.5, 3.5)),
        ((0, -5), (5, 0), (0, 5), (-5, 0)),
        ((0, 5), (4.5, -3.5), (-4.5, -3.5)),
    )[kind - 2]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return shape("polygon", title=title, points=points, class_=colour)
