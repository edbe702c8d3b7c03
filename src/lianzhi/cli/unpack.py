"""``lianzhi unpack``: the weights of a packed file, bit for bit."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "unpack"


def command(
    file: Annotated[str, typer.Argument(autocompletion=complete.models, help="A .lzc file.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A name that ends in .safetensors, or an artifact folder.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Write the tensors of a packed file as .safetensors, or its model as an artifact folder.

    Example: lianzhi unpack model.lzc -o model.safetensors
    """
    from lianzhi import jobs

    common.begin(seed)
    jobs.checked_device(device)
    with common.bar("unpack", shown=not (quiet or as_json)) as report:
        result = jobs.unpack(file, output, force=force, report=report)
    if as_json:
        common.say_json(result)
        return
    common.say(f"{result['file']}: {result['bytes']:,} bytes in {result['path']}")
