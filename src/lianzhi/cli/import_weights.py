"""``lianzhi import-weights``: weights of another framework's checkpoint as a .safetensors file."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "import-weights"


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="A OneFlow checkpoint's folder or file, a PyTorch file, or the prefix of a TensorFlow checkpoint's files."
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="The file to write, such as weights.safetensors.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            autocompletion=complete.fixed("oneflow", "pytorch", "tensorflow"),
            help="oneflow, pytorch or tensorflow (default: as what lies there).",
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option("--heads", min=1, help="Attention heads, of a LiBai BERT, whose Q, K and V are one."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Write a checkpoint's weights to a file that `weights:` of a recipe takes; nothing in the checkpoint is run.

    A BERT gets the names of transformers. What an optimizer keeps, and counters, are left out; both are said.

    Example: lianzhi import-weights resnet50_oneflow/ -o resnet50.safetensors

    Example: lianzhi import-weights uncased_L-12_H-768_A-12/bert_model.ckpt -o bert.safetensors
    """
    from lianzhi import jobs

    common.begin(seed)
    jobs.checked_device(device)
    with common.bar("reading", shown=not (quiet or as_json)) as report:
        result = jobs.import_weights(source, output, kind=kind, heads=heads, force=force, report=report)
    common.say_json(result.to_dict()) if as_json else common.say(result.text(whole=verbose))
