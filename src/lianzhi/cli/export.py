"""``lianzhi export``: the files that a target loads."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "export"


def command(
    model: Annotated[
        str,
        typer.Argument(autocompletion=complete.models, help="An artifact folder, a .lzc or an .onnx file."),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            autocompletion=complete.named("targets"),
            help="What it is to run on. See: lianzhi list targets",
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the files.")],
    capability: Annotated[
        str | None,
        typer.Option("--compute-capability", help="Of the GPU that tensorrt builds for (default: 8.9)."),
    ] = None,
    codes: Annotated[
        bool,
        typer.Option(
            "--codes", help="Weights of few distinct values as a codebook and codes of a byte or two."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Write a model's files for a target, which loads them if it is installed here.

    Example: lianzhi export out/resnet56 --target openvino -o deployed/

    Example: lianzhi export model.lzc --target onnxruntime --codes -o deployed/
    """
    from lianzhi import jobs

    common.begin(seed)
    jobs.checked_device(device)
    options = {} if capability is None else {"compute_capability": capability}
    result = jobs.export(
        common.model_path(model), target=target, output=output, codes=codes, force=force, options=options
    )
    common.say_json(result) if as_json else common.say(jobs.export_text(result))
