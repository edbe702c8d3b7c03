"""Text students of every method beside their teacher: accuracy, size and latency on SST-2, and accuracy on four small tasks.

    lianzhi train recipes/sst2-teacher.yaml -o out/sst2-teacher     # the teacher, once a task (mrpc-, rte-, cola-, stsb-)
    python benchmarks/distillation.py                               # SST-2, three seeds; what is on record is not done again
    python benchmarks/distillation.py --methods mobilebert --corpora data/corpora   # has a teacher of its own: benchmarks/ib_bert.py
    python benchmarks/distillation.py --task rte --methods alone kd pkd theseus
    python benchmarks/distillation.py --task rte --trial            # minutes: few texts, in a record of its own
    python benchmarks/distillation.py --time                        # all that is on record timed again by untrained models, the best of three passes, on an idle machine

The teacher is the 6-layer BERT, 384 wide. Every student is made by ``lz.compress(teacher, task, [lz.Distill(…)])`` with the
options of `text_students.py`; a run that was stopped goes on. The epoch that is kept is chosen by the part that is cut off the training
data; what is counted is the task's metric on GLUE's dev set by the deployed ONNX file. Latency is that of the dev sentence of
median length at batch 1, and on a busy machine it says nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from records import Records, records_of, spread, trial_options
from text_students import (
    ALONE,
    BARS,
    BEYOND,
    CORPUS,
    FINE,
    GAINS,
    GENERAL,
    HALF,
    METHODS,
    PRETRAINED,
    TRAINING,
    step_of,
)
from torch import nn

import lianzhi as lz
from lianzhi import jobs, measure

TASKS = {"sst2": "SST-2", "mrpc": "MRPC", "rte": "RTE", "cola": "CoLA", "stsb": "STS-B"}
TRIAL = 64
PASSES = 3  # of timing again
REPEATS = 300  # of one, at most


def sizes(model: nn.Module) -> dict[str, Any]:
    """Layers and widths as the model's config says them, and the parameters outside of tables of embeddings."""
    config = getattr(model, "config", None)
    tables = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and "position" not in name
    )
    return {
        "layers": getattr(config, "num_hidden_layers", 1),
        "width": getattr(config, "hidden_size", None),
        "ffn": getattr(config, "intermediate_size", None),
        "parameters": measure.parameters(model),
        "outside_tables": measure.parameters(model) - tables,
    }


def latencies(timed: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds at batch 1, in eager PyTorch and in ONNX Runtime's float."""
    found = {f"{entry['runtime']} {entry['precision']}": entry["median_ms"] for entry in timed}
    return {name: found[name] for name in ("pytorch f32", "onnxruntime f32") if name in found}


def begun(
    method: str, teacher: Path, task: lz.Task, given: argparse.Namespace
) -> tuple[nn.Module, list[lz.Train | lz.Distill]]:
    """The model that a run begins with, and its steps; MobileBERT's teacher learns the task first."""
    if method == "tinybert general" and given.task != "sst2":
        student = {"artifact": str(general(teacher, given)), "head": "new"}
        own = {**TRAINING, "epochs": given.epochs, **METHODS["tinybert"], "student": student}
        return lz.load(teacher), [lz.Distill(**own)]
    step = step_of(method, given.epochs, **_corpus(given))
    if method != "mobilebert":
        return lz.load(teacher), [step]
    model = lz.model("huggingface", path=str(given.inverted), num_classes=task.num_classes)
    first = lz.Train(**{**TRAINING, "epochs": given.epochs, "lr": 2e-4})
    own = {**step.options, "masked_lm": str(given.inverted)}
    return model, [first, step.model_copy(update={"options": own})]


def general(teacher: Path, given: argparse.Namespace) -> Path:
    """The student of `tinybert general` that has read the corpus and no task, made once; a stopped run goes on."""
    folder = Path(given.work) / "general"
    if not (folder / "report.json").is_file():
        data = given.data / "glue" / TASKS["sst2"]
        texts = lz.task("sst2", data=data, tokenizer=str(teacher), limit=TRIAL)  # of which nothing is learned
        pretrained = lz.model("huggingface", path=PRETRAINED["path"], num_classes=2)
        step = lz.Distill(
            **{**TRAINING, "epochs": given.epochs, **GENERAL, "options": {"general": _corpus(given)}}
        )
        lz.compress(pretrained, texts, [step], output=folder, target="pytorch", resume=folder.exists())
    return folder


def _corpus(given: argparse.Namespace) -> dict[str, Any]:
    """Where the texts of general distillation are, and how they are read."""
    return {"data": str(given.corpora), "max_length": 64, **({"limit": TRIAL} if given.trial else {})}


def run(method: str, seed: int, teacher: Path, task: lz.Task, given: argparse.Namespace) -> dict[str, Any]:
    """Make one student, from where a stopped run was."""
    folder = folder_of(method, seed, given)
    model, steps = begun(method, teacher, task, given)
    result = lz.compress(
        model,
        task,
        steps,
        output=folder,
        target="onnxruntime",
        seed=seed,
        resume=folder.exists(),
        measure=lz.Measure(batches=(1,), repeats=3 if given.trial else 30),
    )
    row = result.report.rows[-1]
    own = {"teacher_value": result.report.rows[-2]["value"]} if len(steps) > 1 else {}  # of mobilebert
    return {
        "value": row["value"],
        **own,
        "metric": row["metric"],
        "bytes": row["bytes"],
        "seconds": row["seconds"],
        "latencies": latencies(row["latencies"]),
        **sizes(result.model),
    }


def of_teacher(teacher: Path, task: lz.Task, work: Path) -> dict[str, Any]:
    """The teacher, measured as the students are."""
    model = lz.load(teacher)
    options = {"target": "onnxruntime", "measure": lz.Measure(batches=(1,), repeats=30)}
    folder = work / "teacher"
    still = [lz.Distill(epochs=0, **{key: value for key, value in TRAINING.items() if key != "lr"})]
    result = lz.compress(model, task, still, output=folder, resume=folder.exists(), **options)  # type: ignore[arg-type]
    first, last = result.report.rows[0], result.report.rows[-1]
    return {
        "value": first["value"],
        "metric": first["metric"],
        "bytes": last["bytes"],
        "latencies": latencies(first["latencies"]),
        **sizes(model),
    }


def folder_of(method: str, seed: int | str, given: argparse.Namespace) -> Path:
    """Where a student lies."""
    name = f"{method}-{given.epochs:g}-{seed}".replace(" ", "-")
    return Path(given.work) / given.task / name


def stand_in(method: str, teacher: Path, task: lz.Task, given: argparse.Namespace) -> Path:
    """A student of a method's architecture that has learned nothing: how long it takes does not depend on its weights."""
    folder = Path(given.work) / given.task / f"untrained-{method.replace(' ', '-')}"
    own = METHODS[method]
    if own["method"] == "bilstm":
        vectors = own["options"]["vectors"]  # without the teacher's logits, which nothing learns from
        still = lz.Distill(method="bilstm", epochs=0, options={"alpha": 0.0, "vectors": vectors})
    else:
        still = lz.Distill(method="kd", epochs=0, student=own.get("student", HALF["student"]))
    measured = lz.Measure(batches=(1,), repeats=1)
    lz.compress(
        lz.load(teacher),
        task,
        [still],
        output=folder,
        target="onnxruntime",
        measure=measured,
        resume=folder.exists(),
    )
    return folder


def time_again(records: Records, teacher: Path, task: lz.Task, given: argparse.Namespace) -> None:
    """Time the teacher and a student of every method on record, in place of what was timed before.

    They take turns, and of each the best pass is kept: what else a machine does only adds.
    """
    keys: dict[str, list[str]] = {}
    for key, _ in records.items():
        name, method, *_ = key.split(" | ")
        if name == given.task:
            keys.setdefault(method, []).append(key)
    folders = {
        method: teacher if method == "teacher" else stand_in(method, teacher, task, given) for method in keys
    }
    best: dict[str, dict[str, float]] = {method: {} for method in keys}
    for _ in range(1 if given.trial else PASSES):
        for method, folder in folders.items():
            timed = jobs.measure_model(folder, precision="f32", batches=[1], repeats=REPEATS)["latencies"]
            for name, taken in latencies(timed).items():
                best[method][name] = min(best[method].get(name, math.inf), taken)
    for method, found in keys.items():
        for key in found:
            records.time(key, {**records[key], "latencies": best[method]})


def of(
    records: Records, task: str, method: str, epochs: float, like: str | None = None
) -> list[dict[str, Any]]:
    """A method's runs on record; of the seeds alone that the method `like` has too."""
    start, end = f"{task} | {method} | ", f" | {epochs:g} epochs"
    found = [(key, row) for key, row in records.items() if key.startswith(start) and key.endswith(end)]
    return [
        row for key, row in found if like is None or f"{task} | {like} | {key.removeprefix(start)}" in records
    ]


def both(
    records: Records, task: str, method: str, other: str | None, epochs: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of two methods of the seeds that both have."""
    if other is None:
        return [], []
    return of(records, task, method, epochs, like=other), of(records, task, other, epochs, like=method)


def gain(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> float | None:
    """What the mean of some runs is above that of others of the same seeds; None without any.

    >>> gain([{"value": 3.0}], [{"value": 1.0}])
    2.0
    """
    if not rows or not others:
        return None
    first, second = (statistics.mean(row["value"] for row in found) for found in (rows, others))
    return first - second


def beyond(
    rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> tuple[float, float] | None:
    """What `gain` says, and the larger of the two deviations; None without two seeds.

    >>> beyond([{"value": 2.0}, {"value": 4.0}], [{"value": 1.0}, {"value": 1.0}])
    (2.0, 1.4142135623730951)
    """
    gained = gain(rows, others)
    if gained is None or min(len(rows), len(others)) < 2:
        return None
    deviations = [statistics.stdev(row["value"] for row in found) for found in (rows, others)]
    return gained, max(deviations)


def line(
    name: str,
    rows: list[dict[str, Any]],
    teacher: dict[str, Any],
    bar: float | None,
    over: float | None = None,
    least: float | None = None,
    fine: float | None = None,
    passed: tuple[float, float] | None = None,
) -> str:
    """A row of the table: what was measured, beside the teacher.

    `over` is what is gained over the same student on the labels alone, of which `least` is to be passed, and `fine` over one that
    is fine-tuned; `passed` is what is gained over a method that is to be passed, and by how much.
    """
    row = rows[-1]
    mean = statistics.mean(one["value"] for one in rows)
    share = mean / teacher["value"] if teacher["value"] > 0 else math.nan  # of a correlation of none, nothing
    verdict = "" if bar is None else f"{bar:.1%} {'met' if share >= bar else 'MISSED'}"
    if passed is not None:
        verdict = (
            f"{100 * passed[0]:+.2f} > {100 * passed[1]:.2f} {'met' if passed[0] > passed[1] else 'MISSED'}"
        )
    gained = "" if over is None else f"{100 * over:+.2f}"
    if over is not None and least is not None:
        gained += " met" if over > least else " MISSED"
    width = f"{row['width']}/{row['ffn']}" if row["width"] else ""
    eager, ours = row["latencies"].get("pytorch f32"), row["latencies"].get("onnxruntime f32")
    against = [
        f"{before / ours:.1f}×" if before and ours else ""
        for before in (
            teacher["latencies"].get("pytorch f32"),
            teacher["latencies"].get("onnxruntime f32"),
        )
    ]
    cells = [
        name,
        spread([one["value"] for one in rows]),
        str(len(rows)),
        "" if math.isnan(share) else f"{share:.1%}",
        verdict,
        gained,
        "" if fine is None else f"{100 * fine:+.2f}",
        str(row["layers"]),
        width,
        f"{row['parameters'] / 1e6:.1f}M",
        f"{row['outside_tables'] / 1e6:.2f}M",
        f"{row['bytes'] / 1e6:.1f} MB",
        f"{teacher['bytes'] / row['bytes']:.1f}×",
        f"{eager:.2f}" if eager else "",
        f"{ours:.2f}" if ours else "",
        *against,
    ]
    return f"| {' | '.join(cells)} |"


def table(records: Records, task: str, epochs: float) -> str:
    """All methods on record, in the form that papers have."""
    teacher = records[f"{task} | teacher"]
    heads = [
        *(
            "model",
            teacher["metric"],
            "seeds",
            "of the teacher's",
            "bar",
            "over the labels alone",
            "over fine-tuned",
            "layers",
            "width/FFN",
            "parameters",
        ),
        *(
            "outside tables",
            "file",
            "smaller",
            "eager, ms",
            "ONNX Runtime, ms",
            "over its eager",
            "over its float",
        ),
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), line("teacher", [teacher], teacher, None)]
    for method in METHODS:
        rows = of(records, task, method, epochs)
        if rows:
            over, fine, other = (
                both(records, task, method, names.get(method), epochs) for names in (ALONE, FINE, BEYOND)
            )
            bar, least = (BARS.get(method), GAINS.get(method)) if task == "sst2" else (None, None)
            passed = beyond(*other) if task == "sst2" else None
            lines.append(line(method, rows, teacher, bar, gain(*over), least, gain(*fine), passed))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=list(TASKS), default="sst2")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LIANZHI_DATA", "../shared/data")))
    parser.add_argument("--teacher", type=Path, help="an artifact; default: out/TASK-teacher")
    parser.add_argument("--work", type=Path, default=Path("out/distillation"))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--inverted", type=Path, default=Path("out/ib-bert"), help="teacher of mobilebert")
    parser.add_argument(
        "--corpora", type=Path, help="texts for mobilebert and tinybert general; default: corpora in --data"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3, help="of a stage that the method does not say")
    parser.add_argument("--time", action="store_true", help="time again what is on record, and train nothing")
    trial_options(parser, f"{TRIAL} texts, one seed and one epoch")
    given = parser.parse_args()
    teacher = given.teacher or Path("out") / f"{given.task}-teacher"
    if not (teacher / "architecture.json").is_file():
        parser.error(
            f"{teacher} is no finished artifact; make it: lianzhi train recipes/{given.task}-teacher.yaml -o {teacher}"
        )
    given.corpora = given.corpora or given.data / "corpora"
    for method in () if given.time else set(given.methods) & set(CORPUS):
        needed = [given.corpora, *([given.inverted] if method == "mobilebert" else [])]
        if missing := next((place for place in needed if not place.exists()), None):
            parser.error(
                f"{method}: {missing} is not there; see benchmarks/ib_bert.py, or leave it out of --methods"
            )
    if given.trial:
        given.work, given.epochs, given.seeds = given.work / "trial", 1, [0]
    limit = {"limit": TRIAL} if given.trial else {}
    task = lz.task(given.task, data=given.data / "glue" / TASKS[given.task], tokenizer=str(teacher), **limit)
    records = records_of("distillation", given)
    if given.time:
        time_again(records, teacher, task, given)
        given.seeds = []
    elif f"{given.task} | teacher" not in records:
        records.add(f"{given.task} | teacher", of_teacher(teacher, task, given.work / given.task))
    for seed in given.seeds:
        for method in given.methods:
            key = f"{given.task} | {method} | {seed} | {given.epochs:g} epochs"
            if key not in records:
                records.add(key, run(method, seed, teacher, task, given))
                print(table(records, given.task, given.epochs), flush=True)
    print(table(records, given.task, given.epochs))


if __name__ == "__main__":
    main()
