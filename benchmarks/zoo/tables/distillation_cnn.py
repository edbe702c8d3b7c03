"""ResNet-56 teaches ResNet-20 by every method for CNNs."""

from __future__ import annotations

from distillation_cnn import ALONE, METHODS, MORE

from lianzhi.report import format
from zoo import cells, text
from zoo.results import Results
from zoo.table import Entry, Table
from zoo.text import Cell, Text

NAME = "distillation_cnn"
FLOAT32 = 4  # bytes of a weight
TITLE = Text(
    "Distillation: ResNet-56 teaches ResNet-20 on CIFAR-10",
    "蒸馏：CIFAR-10 上 ResNet-56 教 ResNet-20",
)
ABOUT = Text(
    "The teacher has the published weights, fine-tuned on this JPEG copy of the data. A seed gives the student's first weights and "
    "the order of the images, the same for every method; loop and options are the same too; gains are over the student alone of the same seeds. Test images, which choose nothing.",
    "教师为公开权重，在这份 JPEG 副本上微调。种子决定学生的初始权重与图片顺序，对各方法相同；训练循环与选项也相同；提升相对于相同种子的单独训练。测试图片不参与任何选择。",
)
HEADS: tuple[Cell, ...] = (
    Text("student", "学生"),
    text.TOP1,
    Text("over the student alone, points", "比单独训练（百分点）"),
    text.PARAMETERS,
    Text("epochs", "轮数"),
    text.SEEDS,
)


def table(results: Results) -> Table:
    """The student alone, and by each method; those without a run are named as such."""
    teacher = results.find(NAME, "teacher")
    rows: list[tuple[Cell, ...]] = [
        (
            Text("(the teacher, ResNet-56)", "（教师，ResNet-56）"),
            cells.share(teacher, "top1") if teacher else text.NOT_YET,
            *(text.ABSENT,) * 4,
        )
    ]
    entries = []
    for epochs in _epochs(results) or [text.ABSENT]:
        for method in (*METHODS, *MORE):
            runs = _runs(results, method, epochs)
            if method in MORE and not runs and epochs != text.ABSENT:
                continue  # not of the default set, and not asked for
            same, alone = (
                _runs(results, one, epochs, like=other) for one, other in ((method, ALONE), (ALONE, method))
            )
            rows.append(
                (
                    Text("ResNet-20 alone", "单独训练的 ResNet-20") if method == ALONE else f"`{method}`",
                    cells.share(runs, "top1") if runs else text.NOT_YET,
                    cells.change(same, "top1", cells.mean(alone, "top1")) if method != ALONE else text.ABSENT,
                    format.count(cells.mean(runs, "parameters")),
                    epochs.partition(" ")[0],
                    cells.count(runs),
                )
            )
            if runs:
                size = FLOAT32 * (cells.mean(runs, "parameters") or 0)
                label = "ResNet-20 alone" if method == ALONE else f"ResNet-20 by {method}"
                entries.append(
                    Entry(
                        "cifar10",
                        label,
                        "float" if method == ALONE else "distilled",
                        cells.mean(runs, "top1") or 0,
                        size,
                    )
                )
    return Table(
        name="distillation-cnn",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=("python benchmarks/distillation_cnn.py",),
        reads=(NAME,),
        entries=tuple(entries),
    )


def _runs(results: Results, method: str, epochs: str, like: str | None = None) -> list[dict]:
    """A method's runs; of the seeds alone that the method `like` has too."""
    seeds = {parts[1:] for parts in results.keys(NAME) if parts[0] == (like or method)}
    keys = [parts for parts in results.keys(NAME) if parts[0] == method and parts[-1] == epochs]
    return [run for parts in keys if parts[1:] in seeds for run in results.find(NAME, *parts)]


def _epochs(results: Results) -> list[str]:
    """The numbers of epochs on record."""
    found = {parts[-1] for parts in results.keys(NAME) if parts[-1].endswith("epochs")}
    return sorted(found, key=lambda name: float(name.partition(" ")[0]))
