"""The steps of a new recipe: what suits the data, the model and the goal, with a comment for every line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GOALS = {
    "fastest": "answers in the shortest time, and loses at most a point of accuracy",
    "smallest": "takes the fewest bytes, and loses at most three points",
    "accurate": "loses at most half a point: nothing is removed, numbers become smaller where that is free",
}
LOSS = {"fastest": 0.01, "smallest": 0.03, "accurate": 0.005}
SAMPLES = 60_000  # that training from scratch should see at least
LARGE = 64  # pixels; images above are costly, so that batches are smaller
Step = tuple[str, dict[str, tuple[Any, str]]]


@dataclass(frozen=True)
class Facts:
    """What decides: samples to train on, to choose by and to calibrate with, pixels of a side, kind of model, whether trained."""

    train: int
    validation: int
    calibration: int
    side: int = 0
    text: bool = False
    transformer: bool = False
    trained: bool = True


def steps(facts: Facts, goal: str) -> list[Step]:
    """The steps for a goal; each option with its value and what it means."""
    found: list[Step] = []
    if not facts.trained:
        found.append(("train", _training(facts, "over the training data")))
    if goal != "accurate":
        found += [_prune(facts, goal), _distill(facts)]
    if goal == "smallest" and facts.transformer:
        found.append(
            ("reduce_vocabulary", {"least": (1, "tokens stay that occur so often in the training texts")})
        )
    found.append(_quantize(facts, goal))
    if goal == "smallest":
        found.append(("pack", {}))
    return found


MEANINGS = {
    "train": "train the model, as it comes without trained weights",
    "prune": "remove what the model needs least; it really gets smaller",
    "distill": "let the smaller model learn from the one before pruning",
    "reduce_vocabulary": "drop tokens that the training texts do not have",
    "quantize": "compute in integers of 8 bits where that is faster",
    "pack": "write model.lzc as well: the same weights in the fewest bytes",
}


def _epochs(facts: Facts) -> int:
    if facts.transformer:
        return 3
    return max(3, min(30, round(SAMPLES / max(1, facts.train))))


def _training(facts: Facts, what: str) -> dict[str, tuple[Any, str]]:
    """Options of training that are safe for a model that nobody has seen."""
    most = 128 if facts.side and facts.side <= LARGE else 32
    batch = max(
        8, min(most, 2 ** ((facts.train // 8).bit_length()))
    )  # a small set still has some steps an epoch
    epochs = _epochs(facts)
    options: dict[str, tuple[Any, str]] = {
        "epochs": (epochs, f"passes {what}; more take longer, and often help"),
        "batch_size": (batch, "samples a step; less needs less memory"),
        "optimizer": ("adamw", "how weights are updated; sgd, adam, … as well"),
        "lr": (
            5e-5 if facts.transformer else 1e-3,
            "size of an update; if the loss becomes NaN, take a tenth",
        ),
    }
    if facts.transformer:
        options["schedule"] = ("polynomial", "the size of updates falls in a straight line")
        options["warmup"] = (0.1, "after rising over this share of the training")
        options["clip"] = (1.0, "no update is larger than this")
    options["precision"] = ("auto", "bf16 where the processor computes in it, which is faster")
    return options


def _prune(facts: Facts, goal: str) -> Step:
    hard = goal == "smallest"
    share = (0.5 if hard else 0.25) if facts.text else (0.6 if hard else 0.4)
    options: dict[str, tuple[Any, str]] = {
        "criterion": ("taylor", "what is needed least: the loss changes least without it"),
        "ratio": (share, "the share that goes, of all channels; a smaller one loses less accuracy"),
        "normalize": ("mean", "layers are compared by their own average"),
        "calibration": (max(1, min(256, facts.calibration)), "samples that the criterion looks at"),
        "batch_size": (max(1, min(32, facts.calibration)), "of these"),
    }
    if facts.transformer:
        parts = (["heads", "ffn"], "attention heads, and the width between them")
        options = {"granularity": parts, **options}
    return "prune", options


def _distill(facts: Facts) -> Step:
    options: dict[str, tuple[Any, str]] = {
        "method": ("kd", "the student learns the teacher's probabilities; lianzhi list methods"),
        "temperature": (2 if facts.text else 4, "a larger one shows more of how the teacher hesitates"),
        "alpha": (0.9, "how much the teacher counts, beside the labels"),
    }
    return "distill", {**options, **_training(facts, "over the training data")}


def _quantize(facts: Facts, goal: str) -> Step:
    options: dict[str, tuple[Any, str]] = {
        "method": ("ptq", "ptq: calibrated in seconds; qat: trained as well"),
        "calibration": (
            max(1, min(512, facts.calibration)),
            "samples that the ranges of numbers are taken from",
        ),
        "batch_size": (max(1, min(32, facts.calibration)), "of these"),
    }
    if facts.transformer:
        options["techniques"] = (["bias_correction"], "mends what rounding shifts")
    if goal == "accurate" and facts.validation:
        options["max_drop"] = (LOSS[goal] / 2, "layers go back to float until no more accuracy is lost")
    return "quantize", options
