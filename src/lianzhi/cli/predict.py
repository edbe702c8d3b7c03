"""``lianzhi predict``: class names and probabilities, or a score, for images, sentences or pairs of them."""

from __future__ import annotations

from typing import Annotated

import typer

from lianzhi.cli import common, complete

NAME = "predict"


def command(
    model: Annotated[
        str, typer.Argument(autocompletion=complete.models, help="An artifact folder, or a .lzc file in one.")
    ],
    inputs: Annotated[list[str], typer.Argument(help="Image files, or sentences in quotes; two a pair.")],
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
    """Predict the class of each image, sentence or pair of sentences, or its score, with the deployed model.

    Example: lianzhi predict out/demo shirt.png
    Example: lianzhi predict out/sst2-teacher "a film that one would see again"
    Example: lianzhi predict out/mrpc-teacher "He bought the car." "The car was bought by him."
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
        if "second" in item:
            common.say(item["second"])
        if "cut" in item:
            common.say(f"  cut: the first {item['cut']} tokens were read")
        if "score" in item:
            common.say(f"  {item['score']:.4f}")
        for line in item.get("classes", ()):
            common.say(f"  {line['probability']:7.2%}  {line['name']}")
