"""What all commands share: --config, --debug, and one line instead of a traceback."""

import tomllib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from click.types import FuncParamType

from jataug.errors import CheckError, JataugError

from .arguments import misuse, wrong_words
from .interrupt import INTERRUPTED

__all__ = ["Command", "FailedCheck", "Refused", "in_one_line"]


class FailedCheck(click.ClickException):
    """A result that fails a check: exit code 1."""

    exit_code = 1


class Refused(click.ClickException):
    """Wrong usage or input: exit code 2."""

    exit_code = 2


@contextmanager
def in_one_line(command: str) -> Iterator[None]:
    """Turn click's usage errors into one line that names the command's --help."""
    try:
        yield
    except getattr(click.exceptions, "NoArgsIsHelpError", ()):  # the help; new in click 8.2
        raise
    except click.UsageError as error:
        raise Refused(f"{_describe(error)}; see {command} --help") from None


def _describe(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        meant = f", did you mean {error.possibilities[0]}?" if error.possibilities else ""
        return f"no such option {error.option_name}{meant}"
    return " ".join(error.format_message().split()).removesuffix(".")


class Command(click.Command):
    """A command that reads its defaults from a TOML file and turns errors into one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {"help_option_names": ["-h", "--help"], **self.context_settings}
        self.params += [
            click.Option(
                ["--config", "config_file"],
                type=click.Path(path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=self._read_config,
                help=f"TOML file with defaults for these options, in a table [{self.name}].",
            ),
            click.Option(
                ["--debug"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=lambda ctx, _, value: ctx.meta.__setitem__("debug", value),
                help="Show the full traceback if an error occurs.",
            ),
        ]

    def _read_config(self, ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
        if path is None:
            return
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get(self.name or "", {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise Refused(f"--config {path}: cannot be read: {error}") from None
        if not isinstance(table, dict):
            raise Refused(
                f"--config {path}: expected a table [{self.name}], got {type(table).__name__}"
            )
        flags = {o: p.name for p in self.params for o in p.opts if p.name and o.startswith("--")}
        unknown = sorted(key for key in table if f"--{key.replace('_', '-')}" not in flags)
        if unknown:
            raise Refused(
                f"--config {path}: unknown key {unknown[0]!r} in table [{self.name}]; keys are the "
                f"long options of jataug {self.name}"
            )
        params = {p.name: p for p in self.params}
        named = {}
        for key, value in table.items():
            name = flags[f"--{key.replace('_', '-')}"]
            if expected := _wrong_kind(params[name], value):
                raise Refused(f"--config {path}: {key}: expected {expected}, got {value!r}")
            # Passed on as text, so that an integer option rejects 1.5 as on the command line.
            named[name] = value if isinstance(value, bool | list) else str(value)
        ctx.default_map = {**(ctx.default_map or {}), **named}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep the command line in `ctx.meta` for reports."""
        ctx.meta["typed"] = ["jataug", str(self.name), *args]
        words = list(args)
        with in_one_line(f"jataug {ctx.info_name}"):
            try:
                return super().parse_args(ctx, args)
            except click.UsageError as error:
                if line := wrong_words(ctx, words, error):
                    raise Refused(line) from None
                raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show
                return super().invoke(ctx)
        except click.UsageError as error:
            raise Refused(error.format_message()) from None
        except (click.ClickException, click.exceptions.Exit):
            raise
        except JataugError as error:
            self._fail(ctx, error, str(error) if ctx.meta.get("debug") else _line(ctx, error))
        except (KeyboardInterrupt, click.Abort):
            click.echo("stopped", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self._fail(ctx, error, f"{where}{error.strerror or error}")
        except MemoryError as error:
            smaller = any(p.name == "batch_size" for p in self.params)
            hint = (
                "use a smaller --batch-size" if smaller else "free memory, or use a smaller model"
            )
            self._fail(ctx, error, f"out of memory; {hint}")
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            self._fail(
                ctx, error, f"unexpected: {what} (this is a bug in jataug; --debug shows where)"
            )

    def _fail(self, ctx: click.Context, error: Exception, message: str) -> NoReturn:
        if ctx.meta.get("debug"):
            raise error
        line = " ".join(message.split())
        if isinstance(error, CheckError):
            raise FailedCheck(line) from None
        raise Refused(line) from None


def _wrong_kind(param: click.Parameter, value: Any) -> str | None:
    """Return the expected kind of a TOML value that has the wrong kind; None if it is right."""
    if getattr(param, "is_flag", False):
        return None if isinstance(value, bool) else "true or false"
    values = value if isinstance(value, list) else [value]
    several = getattr(param, "multiple", False) or isinstance(param.type, FuncParamType)
    if isinstance(value, list) and not several:
        return "one value"
    if isinstance(param.type, click.Path):
        return None if all(isinstance(v, str) for v in values) else "a path as a string"
    plain = all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in values)
    return None if plain else "a string, a number, or a list of them"


def _line(ctx: click.Context, error: JataugError) -> str:
    """Return the message: an argument of the wrong kind if there is one, else the error itself."""
    if isinstance(error, CheckError):
        return str(error)
    try:
        return misuse(ctx) or str(error)
    except (OSError, ImportError):  # the file cannot be read, and the first error says why
        return str(error)


def _show(message: Any, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)
