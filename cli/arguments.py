"""What arguments are, and a line that says so where they are of the wrong kind or out of order."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click

from jataug.errors import JataugError

__all__ = ["kind_of", "misuse", "wrong_words"]


class _Role(NamedTuple):
    """What an argument is for: its name, what is expected, the kinds that this is, what to do."""

    name: str
    expected: str
    kinds: frozenset[str]
    cure: str


_ATTACK, _MODEL, _RUN = "an attack artifact", "an ONNX model without a manifest", "a training run"
_DATASET, _UNFINISHED = "a data set", "a data set that is not finished"
_EMPTY, _IMAGES, _ARRAYS = "an empty folder", "a folder of images", "a file of images"
_FOLDER, _FILE, _NOTHING = "a folder", "a file of another kind", "nothing there"
_SOURCE = frozenset({_DATASET, _UNFINISHED, _ARRAYS, _EMPTY, _IMAGES, _FOLDER, _FILE})
_TOLD = {_NOTHING, _FILE}
"""What the library tells better, which tried to read it."""

_SUFFIXES = frozenset({".npz", ".npy", ".tar", ".parquet", ".png", ".jpg", ".jpeg", ".webp"})

_ONNX = "give the model's .onnx file"
_AS_ATTACK = _Role(
    "ATTACK", "an attack artifact", frozenset({_ATTACK}), "jataug export MODEL -o FILE makes one"
)
_AS_MODEL = _Role("MODEL", "a classifier as an .onnx file", frozenset({_MODEL}), _ONNX)
_AS_RUN = _Role("MODEL", "a classifier or a training run", frozenset({_MODEL, _RUN}), _ONNX)
_AS_JUDGE = _Role("--model", "an attack or a classifier", frozenset({_MODEL, _ATTACK}), _ONNX)
_AS_SOURCE = _Role("SOURCE", "images", _SOURCE, "give the folder or the file that holds them")
_AS_DATASET = _Role(
    "DESTINATION",
    "a data set that jataug generate made",
    frozenset({_DATASET, _UNFINISHED}),
    "jataug generate ATTACK SOURCE DESTINATION makes one",
)
_AS_ANY = _Role(
    "FILE",
    "an attack artifact, a model or a data set",
    frozenset({_ATTACK, _MODEL, _DATASET, _UNFINISHED, _FILE}),
    "images are what jataug generate, evaluate and train take as SOURCE",
)
_ROLES: Mapping[str, Mapping[str, _Role]] = {
    "generate": {"attacks": _AS_ATTACK, "source": _AS_SOURCE},
    "preview": {"attack": _AS_ATTACK, "source": _AS_SOURCE},
    "export": {"model": _AS_RUN},
    "differentiate": {"model": _AS_MODEL},
    "evaluate": {"models": _AS_MODEL},
    "verify": {"destination": _AS_DATASET, "model": _AS_JUDGE, "source": _AS_SOURCE},
    "inspect": {"file": _AS_ANY},
    "runtimes": {"artifact": _AS_ATTACK},
    "train": {"source": _AS_SOURCE},
}
_MAKES = {
    _MODEL: "jataug export {} -o attack.onnx makes one of it",
    _RUN: "jataug export {} -o attack.onnx --save-model model.onnx makes one of it",
}


def misuse(ctx: click.Context) -> str | None:
    """Return a line for the first argument that is of the wrong kind; None where there is none."""
    held = [(path, role, kind_of(path)) for path, role in _arguments(ctx)]
    absent = [str(path) for path, _, kind in held if kind == _NOTHING]
    if line := _spaced([word for word in absent if _is_number(word)]):
        return line
    for path, role, kind in held:
        if kind in role.kinds or (kind in _TOLD and role not in (_AS_DATASET, _AS_ANY)):
            continue
        if any(kind in r.kinds and k in role.kinds for _, r, k in held if r is not role):
            cure = f"the order is {_usage(ctx)}"
        else:
            cure = _cure(path, role, kind)
        return f"{path}: expected {role.name} to be {role.expected}, got {kind}; {cure}"
    return None


def _arguments(ctx: click.Context) -> Iterator[tuple[Path, _Role]]:
    for name, role in _ROLES.get(str(ctx.info_name), {}).items():
        given = ctx.params.get(name)
        paths: list[Path] = list(given) if isinstance(given, tuple) else [given] if given else []
        if name == "models":
            yield from ((path, role) for path in paths[:-1])
            yield from ((path, _AS_SOURCE) for path in paths[-1:])
        else:
            yield from ((path, role) for path in paths)


def _cure(path: Path, role: _Role, kind: str) -> str:
    if kind == _NOTHING or (role is _AS_ANY and kind in (_EMPTY, _FOLDER)):
        return "check the path"
    if kind == _RUN or (kind == _MODEL and role is _AS_ATTACK):
        return _MAKES[kind].format(path)
    if kind == _ATTACK and _MODEL in role.kinds:
        return "give the model that it was made from"
    return role.cure


def _usage(ctx: click.Context) -> str:
    """Return how the command is called: jataug preview ATTACK SOURCE."""
    return " ".join(["jataug", str(ctx.info_name), *_pieces(ctx)])


def _pieces(ctx: click.Context) -> list[str]:
    pieces = [piece for piece in ctx.command.collect_usage_pieces(ctx) if piece != "[OPTIONS]"]
    return " ".join(pieces).split()


def wrong_words(ctx: click.Context, words: list[str], error: click.UsageError) -> str | None:
    """Return a line for arguments that are missing or too many; else None."""
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
        given, pieces = _given(ctx, words), _pieces(ctx)
        missing = " and ".join(pieces[len(given) :])
        return (
            f"expected {_usage(ctx)}, got {' '.join(given) or 'none of them'}: {missing} "
            f"missing; jataug {ctx.info_name} --help has examples"
        )
    _, found, extra = error.message.partition("Got unexpected extra argument")
    if not found:
        return None
    more = extra.partition("(")[2].removesuffix(")").split()
    return _spaced([word for word in more if _is_number(word)]) or (
        f"expected {_usage(ctx)}, got {' '.join(more)} besides; quote a path that has spaces in it"
    )


def _spaced(words: list[str]) -> str | None:
    """Return a line for numbers that stand where arguments do."""
    if not words:
        return None
    return (
        "expected the numbers of an option with commas between them, such as --mean "
        f"0.485,0.456,0.406, got {words[0]} after a space"
    )


def _given(ctx: click.Context, words: list[str]) -> list[str]:
    """Return the words that are arguments."""
    found, _, _ = ctx.command.make_parser(ctx).parse_args(list(words))
    arguments = [p.name for p in ctx.command.params if isinstance(p, click.Argument)]
    values = [found.get(str(name)) for name in arguments]
    flat = [word for v in values for word in (v if isinstance(v, (tuple, list)) else [v])]
    return [word for word in flat if isinstance(word, str)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def kind_of(path: Path) -> str:
    """Return what lies at a path, in words."""
    if not path.exists():
        return _NOTHING
    return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)


def _kind_of_file(path: Path) -> str:
    from jataug.artifact import is_artifact
    from jataug.export.model.load import load_model

    if path.suffix.lower() in _SUFFIXES or "idx3" in path.name:
        return _ARRAYS
    if is_artifact(path):
        return _ATTACK
    try:
        load_model(path)
    except JataugError:
        return _FILE
    return _MODEL


def _kind_of_folder(path: Path) -> str:
    from jataug.data import open_source
    from jataug.dataset.stored_source import is_stored

    if (path / "config.json").is_file() and (path / "environment.json").is_file():
        return _RUN
    if not any(path.iterdir()):
        return _EMPTY
    try:
        return _DATASET if is_stored(path) else _IMAGES if len(open_source(path)) else _FOLDER
    except JataugError:
        return _UNFINISHED if (path / "plan.json").is_file() else _FOLDER
