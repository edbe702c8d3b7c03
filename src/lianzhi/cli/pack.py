"""``lianzhi pack``: a small file that holds a model bit for bit, or with pruned and shared weights."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lianzhi.cli import common, complete

NAME = "pack"


def command(
    model: Annotated[
        str,
        typer.Argument(autocompletion=complete.models, help="An artifact folder, or a .safetensors file."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write, such as model.lzc.")],
    bits: Annotated[
        str | None,
        typer.Option("--bits", help="Share weights: bits of a code, 5, or by name: 'conv*=8,*=5'."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            help="Share weights so that codes take so many bits a weight, 2.5, or by name: 'embed*=1.8,*=3.4'.",
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", help="Set this share of each layer's smallest weights to zero first."),
    ] = None,
    other: Annotated[
        str,
        typer.Option(
            "--other",
            help="How all that is not shared is stored, biases and norms and weights without bits or rate: as it is (float32), or rounded (float16).",
        ),
    ] = "float32",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Pack a model into a .lzc file: few distinct values and many zeros make it small.

    Without --bits, --rate, --sparsity and --other float16 every tensor is kept bit for bit. `lianzhi.load` and the other commands read the file.

    Example: lianzhi pack out/lenet5 -o model.lzc

    Example: lianzhi pack out/lenet5 -o small.lzc --sparsity 0.9 --bits 'conv*=8,*=5'
    """
    from lianzhi import jobs

    common.begin(seed)
    jobs.checked_device(device)
    with common.bar("pack", shown=not (quiet or as_json)) as report:
        result = jobs.pack(
            model,
            output,
            bits=_numbers(bits, "--bits", int),
            rate=_numbers(rate, "--rate", float),
            sparsity=sparsity,
            other=other,
            force=force,
            report=report,
        )
    common.say_json(result.to_dict()) if as_json else common.say(str(result))


def _numbers(text: str | None, option: str, kind: type[int] | type[float]) -> Any:
    """A number, or numbers by pattern of names.

    >>> _numbers("5", "--bits", int), _numbers("conv*=8, *=5", "--bits", int)
    (5, {'conv*': 8, '*': 5})
    """
    from lianzhi.errors import RecipeError

    if text is None:
        return None
    try:
        if "=" not in text:
            return kind(text)
        pairs = [part.rpartition("=") for part in text.split(",")]
        found = [(pattern.strip(), kind(number)) for pattern, _, number in pairs]
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise RecipeError(f"{option} {text}: write {what}, or 'conv*=8,*=5'") from None
    patterns = [pattern for pattern, _ in found]
    for pattern in patterns:
        if patterns.count(pattern) > 1:
            raise RecipeError(f"{option} {text}: '{pattern}' stands twice; keep one")
    return dict(found)
