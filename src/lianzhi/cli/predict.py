"""``lianzhi predict``: class names and probabilities for images or sentences."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common

NAME = "predict"


def command(
    model: Annotated[str, typer.Argument(help="An artifact folder, or a .lzc file in one.")],
    inputs: Annotated[list[str], typer.Argument(help="Image files, or sentences in quotes.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes a line.")] = 5,
    runtime: common.Runtime = None,
    precision: common.Precision = None,
    threads: common.Threads = None,
    seed: common.Seed = None,
    device: common.Device = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
) -> None:
    """Predict the class of each image or sentence with the deployed model.

    Example: lianzhi predict out/demo shirt.png
    Example: lianzhi predict out/sst2-teacher "a film that one would see again"
    """
    from lianzhi import jobs

    common.begin(seed)
    predictions = jobs.predict(
        common.model_path(model),
        inputs,
        top=top,
        runtime=runtime,
        precision=precision,
        threads=threads,
        device=device,
        progress=not (quiet or as_json),
    )
    if as_json:
        common.say_json(predictions)
        return
    for item in predictions:
        common.say(item["input"])
        for line in item["classes"]:
            common.say(f"  {line['probability']:7.2%}  {line['name']}")
