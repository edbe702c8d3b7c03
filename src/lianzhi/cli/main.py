"""The program `lianzhi`: its commands, and how it ends.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from lianzhi._version import __version__
from lianzhi.cli import (
    common,
    compress,
    evaluate,
    export,
    import_weights,
    init,
    inspect,
    listing,
    measure,
    pack,
    predict,
    report,
    train,
    unpack,
)
from lianzhi.errors import LianzhiError, closest, did_you_mean

INTERRUPTED = 130
app = typer.Typer(
    name="lianzhi",
    help="Make a trained model small and fast, and prove it. 炼知：让训练好的模型更小、更快，并给出证明。",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (
    init,
    compress,
    train,
    evaluate,
    measure,
    inspect,
    export,
    predict,
    pack,
    unpack,
    import_weights,
    report,
):
    app.command(name=module.NAME)(module.command)
app.command(name="list")(listing.command)


@app.callback(invoke_without_command=True)
def _top(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        typer.echo(f"lianzhi {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a terminal of another encoding shows \u2212 and does not end the work
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _broken_packages_named():
            code = app(arguments, standalone_mode=False, prog_name="lianzhi")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except LianzhiError as error:
        return _end(error.exit_code, str(error), arguments)
    except OSError as error:
        return _end(2, _explain(error), arguments)
    except MemoryError as error:
        return _end(2, _no_memory(error), arguments)
    except Exception as error:
        if "allocate memory" in str(error) or "out of memory" in str(error):
            return _end(2, _no_memory(error), arguments)
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _end(error.exit_code, _usage(error), arguments)
        if type(error).__name__ == "Abort":
            return _interrupted(arguments)
        if common.wants("--verbose", arguments):
            traceback.print_exc()
        return _end(1, f"{type(error).__name__}: {error} (run with --verbose for where)", arguments)
    if code == INTERRUPTED:  # so typer answers Ctrl-C
        return _interrupted(arguments)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _broken_packages_named() -> Iterator[None]:
    """A package that adds names and cannot be loaded is a remark, in one line; other warnings stay as they are."""
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **options: Any) -> None:
        if category.__name__ == "PluginWarning":
            common.remark(f"lianzhi: {message}")
        else:
            shown(message, category, *where, **options)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def _interrupted(arguments: Sequence[str]) -> int:
    """What was done so far is saved; only runs can be resumed."""
    resumable = arguments[:1] in (["compress"], ["train"])
    how = "; run the same command with -o FOLDER --resume to go on" if resumable else ""
    return _end(INTERRUPTED, f"interrupted{how}", arguments)


def _usage(error: Any) -> str:
    """What is wrong with a call, with the nearest name that there is."""
    context = getattr(error, "ctx", None)
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    message = str(error.format_message())
    option = getattr(error, "option_name", None)
    if context is not None and option is not None:
        near = closest(option, [name for item in context.command.params for name in item.opts])
        return f"no such option '{option}'" + (f"; did you mean '{near}'?" if near else "") + hint
    unknown = re.match(r"No such command '(.*?)'", message)
    if context is not None and unknown is not None:
        name = unknown.group(1)
        if name.endswith((".yaml", ".yml", ".onnx")):
            return f"'{name}' is no command; did you mean: lianzhi compress {name}"
        return f"no such command '{name}'{did_you_mean(name, context.command.list_commands(context))}{hint}"
    return message + hint


def _no_memory(error: BaseException) -> str:
    return (
        f"there is not enough memory ({' '.join(str(error).split()) or 'it is used up'}); use smaller batches "
        f"(--batch, or the steps' batch_size), fewer samples (limit), or smaller inputs"
    )


def _explain(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    if error.errno == 28:  # ENOSPC
        return f"the disk is full{where}; free some space, then run the same command with --resume"
    return f"{error.strerror or error}{where}"


def _end(code: int, message: str, arguments: Sequence[str]) -> int:
    common.error_console().print(
        f"lianzhi: {message}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    if common.wants("--json", arguments):
        with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
            common.say_json({"error": message, "exit_code": code})
    return code
