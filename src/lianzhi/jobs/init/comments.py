"""What each line of a new recipe means, for somebody who has never seen one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lianzhi.jobs.init.filling import CHANNELS, CLASSES, SIZES, TOKENS
from lianzhi.jobs.init.models import ModelChoice
from lianzhi.jobs.init.steps import GOALS, MEANINGS, Step
from lianzhi.tasks import Task
from lianzhi.tasks.recognize import Recognized

MODEL = {
    "artifact": "a folder that Lianzhi saved: architecture and weights",
    "file": "your Python file, which is run to make the model",
    "path": "a folder, package:NAME/folder, or a name on the hub",
    "weights": "trained weights; no code in the file is run",
    **dict.fromkeys(CLASSES, "of the data; passed to the model"),
    **dict.fromkeys(CHANNELS, "of the data's images; passed to the model"),
    **dict.fromkeys(SIZES, "of the data's images; passed to the model"),
    **dict.fromkeys(TOKENS, "so many tokens the texts are cut into; passed to the model"),
}
TASK = {
    "data": "where it lies",
    "size": "images are scaled to so many pixels, as the model has it",
    "tokenizer": "how texts become numbers; words: whole words of the training texts",
    "calibration": "so many samples are cut off to calibrate with",
    "score": "the label is a number to predict, not a class",
    "text": "the column of the texts",
    "second": "the column of the second text of a pair",
    "label": "the column of the classes",
}


def head(model: ModelChoice, found: Recognized, goal: str, output: str) -> Sequence[str]:
    """The lines at the top."""
    place = f" in {found.path}" if found.path != Path() else ""
    return (
        f"{model.what}, on {found.what}{place}.",
        f"Goal: {goal}. It {GOALS[goal]}.",
        "Written by lianzhi init. Every line may be changed; paths begin in the folder in which the command is run.",
        "",
        f"  lianzhi compress {output} --dry-run    says what it would do, and about how long that takes",
        f"  lianzhi compress {output} -o out/{Path(output).stem}    does it",
    )


def comments(raw: dict[str, Any], chosen: Sequence[Step], task: Task) -> dict[str, str]:
    """Comments by the path of a key."""
    found = {
        "target": "every runtime that is installed is tried, and the fastest kept"
        if raw["target"] == "auto"
        else "what the model is made for; auto: the fastest of those installed",
        "precision": "integers of 8 bits ship, also where floats would be faster",
        "seed": "the same seed gives the same result",
        "measure.batches": "speed is measured with so many samples a call",
        "measure.max_drop": "accuracy that the file that ships may lose, by the samples to choose by: 0.01 is a point",
    }
    named = "the class or function in it" if "file" in raw["model"] else "of the zoo; lianzhi list models"
    found |= {f"model.{key}": MODEL.get(key, "passed to the model") for key in raw["model"]}
    found |= {"model.name": named}
    found |= {
        f"task.{key}": TASK.get(key, "an option of the task; lianzhi list tasks") for key in raw["task"]
    }
    found |= {"task.name": f"how the data is read: {sizes(task)}"}
    told = {f"steps.{place}.{kind}": options for place, (kind, options) in enumerate(chosen)}
    for place, step in enumerate(raw["steps"]):
        for kind, options in step.items():
            path = f"steps.{place}.{kind}"
            found[path] = MEANINGS.get(kind, "")
            known = told.get(path, {})
            found |= {f"{path}.{key}": known[key][1] for key in options or {} if key in known}
    return {path: text for path, text in found.items() if text}


def sizes(task: Task) -> str:
    """How many samples are for what, and how many classes there are."""
    uses = {
        "train": "to train",
        "validation": "to choose by",
        "calibration": "to calibrate",
        "test": "to report",
    }
    counts = [f"{task.size(name):,} {what}" for name, what in uses.items() if task.has(name)]
    classes = (
        "a score" if task.scores else f"{task.num_classes:,} classes" if task.num_classes else "no classes"
    )
    return f"{classes}; {', '.join(counts)}"
