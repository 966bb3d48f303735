"""HTML and SVG, built from elements: what is no element is text, and is escaped."""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from ....drawing import printable

__all__ = ["Html", "Node", "Value", "element", "joined"]

_VOID = frozenset({"br", "img", "link", "meta"})


class Html(str):
    """Markup. Only `element` and `joined` make it, of text that they escape."""

    __slots__ = ()


Node: TypeAlias = "str | Iterable[Node] | None"
"""Html, text, or a sequence of both; None is nothing."""

Value = str | float | bool | None
"""Of an attribute: None and False leave it out; numbers are rounded to hundredths."""


def element(name: str, /, *children: Node, **attributes: Value) -> Html:
    """Return an element. Attribute names lose a final _, other _ become -."""
    start = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    if name in _VOID:
        return Html(start)
    return Html(f"{start}{joined(*children)}</{name}>")


def joined(*children: Node) -> Html:
    """Return nodes one after the other; text is escaped, and control characters are spelled out."""
    return Html("".join(_text(child) for child in children))


def _text(child: Node) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escape(printable(child), quote=True)
    return "".join(_text(part) for part in child)


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = value if isinstance(value, str) else f"{round(value, 2):g}"
    return f' {name}="{escape(printable(shown), quote=True)}"'
