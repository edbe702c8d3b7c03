"""Every table once at small size: each benchmark's own trial, two at a time, from where a stopped run was.

What is made says that all runs, and nothing of the methods. Results and pages go to a folder of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lianzhi import files

TASKS = ("sst2", "mrpc", "stsb", "rte", "cola")
BEGUN = {"rte": "stsb"}  # with the teacher of another task
FEW = ("alone", "kd")  # methods of the four small tasks; SST-2 has them all
COMPOSED = (  # of the recipes for goals those of one model
    "fashion-smallest",
    "fashion-fastest",
    "fashion-half-point",
    "cifar10-resnet56",
    "sst2-prune",
    "sst2-chain",
)
TEXTS = Path("README.md")  # of a corpus a few lines will do
JOBS = 2


@dataclass(frozen=True)
class Part:
    """A command, and the parts that have to be there before it."""

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()


def parts(folder: Path) -> list[Part]:
    """All of them, those that others wait for first. They are resumed by being run again."""
    work, small = folder / "work", ("--trial", "--results", str(folder / "results"))
    teacher = str(work / "sst2-teacher")

    def bench(script: str, *options: str) -> tuple[str, ...]:
        return (sys.executable, f"benchmarks/{script}.py", *options, *small)

    made = []
    for task in TASKS:
        before = (f"{BEGUN[task]} teacher",) if task in BEGUN else ()
        made.append(Part(f"{task} teacher", _teacher(task, work), before))
    made.append(Part("ib_bert", _inverted(work)))
    made += [
        Part(
            "composed",
            bench("composed", "--work", str(work / "composed"), "--first", str(work), "--recipes", *COMPOSED),
            ("sst2 teacher",),
        ),
        Part("distillation sst2", _distillation(bench, "sst2", work), ("sst2 teacher", "ib_bert")),
        Part(
            "quantization",
            bench("quantization", "--bert", teacher, "--work", str(work / "quantization")),
            ("sst2 teacher",),
        ),
        Part("distillation_cnn", bench("distillation_cnn", "--work", str(work / "distillation_cnn"))),
        Part("pruning_resnet56", bench("pruning_resnet56", "--work", str(work / "pruning_resnet56"))),
        Part("pruning_criteria", bench("pruning_criteria")),
        Part("pruning_weights", bench("pruning_weights", "--work", str(work / "pruning_weights"))),
        Part("quantization_lite0", bench("quantization_lite0")),
        Part("quantization_mixed", bench("quantization_mixed")),
        *(
            Part(f"pruning_coverage {which}", bench("pruning_coverage", "--list", which))
            for which in ("zoo", "transformers")
        ),
        Part("deep_compression_coder", bench("deep_compression_coder")),
        Part(
            "latency_budget",
            (
                sys.executable,
                "benchmarks/latency_budget.py",
                "--model",
                "resnet20",
                "--batch",
                "8",
                *small[1:],
            ),
        ),
    ]
    for model in ("resnet20", "bert6"):
        options = ("--model", model, "--bert", teacher, "--methods", "qat", "--work", str(work / "qat"))
        made.append(Part(f"quantization_qat {model}", bench("quantization_qat", *options), ("sst2 teacher",)))
    for model in ("lenet_300_100", "lenet_5", "resnet20", "bert6"):
        options = ("--model", model, "--bert", teacher, "--work", str(work / "deep_compression"))
        made.append(Part(f"deep_compression {model}", bench("deep_compression", *options), ("sst2 teacher",)))
    for task in TASKS[1:]:
        made.append(Part(f"distillation {task}", _distillation(bench, task, work), (f"{task} teacher",)))
    pruned = str(work / "composed" / "trial" / "sst2-prune-0")
    return [*made, Part("pruning_bert", bench("pruning_bert", teacher, pruned), ("composed",))]


def _teacher(task: str, work: Path) -> tuple[str, ...]:
    """Fine-tune a text teacher on a few texts."""
    folder = work / f"{task}-teacher"
    settings = (
        "task.limit=64",
        "steps.0.epochs=1",
        "target=onnxruntime",
        "measure.batches=[1]",
        "measure.repeats=3",
        *([f"model.artifact={work / BEGUN[task]}-teacher"] if task in BEGUN else []),
    )
    call = (sys.executable, "-m", "lianzhi", "train", f"recipes/{task}-teacher.yaml", "-o", str(folder))
    return (*call, *(word for text in settings for word in ("--set", text)))


def _inverted(work: Path) -> tuple[str, ...]:
    """The teacher of MobileBERT, on a few lines of text."""
    options = ("--corpora", str(TEXTS), "--output", str(work / "ib-bert"), "--epochs", "1", "--limit", "64")
    return (sys.executable, "benchmarks/ib_bert.py", *options)


def _distillation(bench: object, task: str, work: Path) -> tuple[str, ...]:
    """Students of a task; `bench` completes the command."""
    options = (
        "--task",
        task,
        "--teacher",
        str(work / f"{task}-teacher"),
        "--work",
        str(work / "distillation"),
        "--inverted",
        str(work / "ib-bert"),
        "--corpora",
        str(TEXTS),
    )
    return bench("distillation", *options, *(() if task == "sst2" else ("--methods", *FEW)))  # type: ignore[operator]


def run(folder: Path, only: Sequence[str] = (), jobs: int = JOBS) -> list[str]:
    """Run what is not done yet; the names of the parts that failed. `only` are words in the names of parts.

    What a part took is kept in seconds, and in seconds of the processor: on a busy machine these are what it takes.
    """
    files.make_folder(folder / "logs")
    record = folder / "seconds.json"
    done: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.is_file() else {}
    wanted = [part for part in parts(folder) if not only or any(word in part.name for word in only)]
    futures: dict[str, Future[bool]] = {}

    def one(part: Part) -> bool:
        if any(name in futures and not futures[name].result() for name in part.after):
            print(f"{part.name}: left out, since {' and '.join(part.after)} failed", flush=True)
            return False
        start = time.perf_counter()
        good, processor = _call(part, folder)
        seconds = time.perf_counter() - start
        print(
            f"{part.name}: {'done' if good else 'FAILED'} in {seconds:.0f} s ({processor:.0f} s of CPU)",
            flush=True,
        )
        if good:
            done[part.name] = {"seconds": round(seconds, 1), "cpu": round(processor, 1)}
            files.write_text(record, json.dumps(done, indent=1) + "\n")
        return good

    with ThreadPoolExecutor(jobs) as pool:
        for part in wanted:
            if part.name not in done:
                futures[part.name] = pool.submit(one, part)
    took = sum(one["cpu"] for one in done.values())
    print(f"{len(done)} of {len(parts(folder))} parts are done; they took {took / 60:.1f} minutes of CPU")
    return [name for name, future in futures.items() if not future.result()]


def _call(part: Part, folder: Path) -> tuple[bool, float]:
    """Run a command with its output in a file; whether it was good, and its CPU seconds. Its last line says what was not."""
    log = folder / "logs" / f"{part.name.replace(' ', '-')}.txt"
    command = list(part.command)
    if "-o" in command and Path(command[command.index("-o") + 1]).exists():
        command.append("--resume")
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    environment.setdefault("DATA", environment.get("LIANZHI_DATA", "../shared/data"))
    with log.open("w", encoding="utf-8") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)  # so that it is not waited for again
    if child.returncode:
        lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        ended = (
            f"ended by signal {-child.returncode}"
            if child.returncode < 0
            else f"ended with {child.returncode}"
        )
        print(f"{part.name} {ended}: {lines[-1] if lines else 'it printed nothing'}\n  {log}", flush=True)
    return child.returncode == 0, used.ru_utime + used.ru_stime
