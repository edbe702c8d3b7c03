"""What the commands share: options, consoles, and how a MODEL argument is opened."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lianzhi.cli import complete
from lianzhi.errors import ArtifactError, RecipeError, closest

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no remarks.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks and details.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Seed of everything random (default: the recipe's, else 0)."),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        autocompletion=complete.devices,
        help="Where PyTorch computes: cpu, cuda, cuda:0, mps (default: cpu).",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of the runtime (default: all cores).")
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        autocompletion=complete.named("targets"),
        help="pytorch, onnxruntime, openvino (default: the artifact's own).",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        autocompletion=complete.precisions,
        help="f32, bf16, int8, int4-weights, … (default: what the file holds).",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        autocompletion=complete.named("tasks"),
        help="A task's name (default: the artifact's own). See: lianzhi list tasks",
    ),
]
Data = Annotated[str | None, typer.Option("--data", help="The folder or file of the task's data.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one key of the recipe: steps.1.ratio=0.6")
]
Options = Annotated[list[str] | None, typer.Option("--set", help="An option of the task: limit=100")]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="Folder for the result (default: out/<recipe>-<time>).")
]


def begin(seed: int | None) -> None:
    """Let everything random that follows start from a seed, if one is given."""
    if seed is not None:
        import torch

        torch.manual_seed(seed)


def wants(flag: str, arguments: Sequence[str]) -> bool:
    """True if the flag is among the arguments (before parsing is known to have worked)."""
    return flag in arguments or (flag == "--verbose" and "-v" in arguments)


def leads() -> bool:
    """True in the process that prints results: the first of those that `torchrun` started, or the only one.

    >>> leads()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def error_console() -> Console:
    """Errors and remarks go to stderr."""
    return Console(stderr=True)


def remark(text: str) -> None:
    """Print a remark for people on stderr."""
    if not leads():
        return
    error_console().print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print text for people on stdout, as it is; of several processes the first one does."""
    if not leads():
        return
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def say_json(value: Any) -> None:
    """Print JSON on stdout; of several processes the first one does."""
    if not leads():
        return
    from lianzhi import files

    plain = files.finite(value)
    text = json.dumps(plain, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a terminal of another encoding, or a file name that is no text
        text = json.dumps(plain, indent=2, default=str)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def key_values(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Parse ``key=value`` options; values as in YAML.

    >>> key_values(["limit=100", "name=cat"])
    {'limit': 100, 'name': 'cat'}
    """
    from lianzhi import files

    result = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise RecipeError(f"--set {pair}: write it as KEY=VALUE, such as limit=100")
        result[key.strip()] = files.parse_yaml(value, f"--set {key.strip()}")
    return result


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers with commas between.

    >>> numbers("0.5,0.25", "--mean")
    (0.5, 0.25)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"{option} {text}: write numbers as 0.485,0.456,0.406") from None


def sizes(text: str, option: str) -> tuple[int, ...]:
    """A shape.

    >>> sizes("3x32x32", "--input")
    (3, 32, 32)
    """
    parts = text.lower().replace(",", "x").split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise RecipeError(f"{option} {text}: write the shape of one sample as 3x32x32")
    return tuple(int(part) for part in parts)


def model_path(model: str) -> Path:
    """The MODEL argument as an existing path."""
    path = Path(model)
    if not path.exists():
        here = path.parent.iterdir() if path.parent.is_dir() else ()
        near = closest(path.name, [entry.name for entry in here])
        hint = f"; did you mean '{path.parent / near}'?" if near else ""
        raise ArtifactError(f"{model}: no such artifact folder or file{hint}")
    return path


@contextlib.contextmanager
def bar(title: str, *, shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr: what it yields takes the name of what is being done, how much is done, and of how much."""
    if not shown:
        yield None
        return
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=error_console(), transient=True) as progress:
        task = progress.add_task(title)
        yield lambda name, done, total: progress.update(
            task, completed=done, total=total, description=escape(name)
        )
