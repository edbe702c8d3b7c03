"""The same students on four small tasks of GLUE, by their accuracy."""

from __future__ import annotations

from text_students import METHODS

from zoo import cells, text
from zoo.results import Results, Run
from zoo.table import Table
from zoo.tables.distillation import NAME, TITLES, epochs_of, runs_of
from zoo.text import Cell, Text

METRICS = {
    "mrpc": Text("MRPC, accuracy %", "MRPC 准确率 %"),
    "rte": Text("RTE, accuracy %", "RTE 准确率 %"),
    "cola": Text("CoLA, Matthews × 100", "CoLA Matthews × 100"),
    "stsb": Text("STS-B, Pearson × 100", "STS-B Pearson × 100"),
}
MADE = ("mrpc", "stsb", "rte", "cola")  # RTE's teacher begins with that of STS-B
TITLE = Text("Distillation: MRPC, RTE, CoLA, STS-B", "蒸馏：MRPC、RTE、CoLA、STS-B")
ABOUT = Text(
    "The same teachers, students and options on four small tasks of GLUE, on their dev sets; in brackets the number of seeds. "
    "RTE's teacher begins with that of STS-B, whose last layer it replaces.",
    "同样的教师、学生与选项用于 GLUE 的四个小任务，在其 dev 集上评估；括号内为种子数。RTE 的教师从 STS-B 的教师开始，换上新的最后一层。",
)
HEADS: tuple[Cell, ...] = (text.METHOD, *METRICS.values())


def table(results: Results) -> Table:
    """Accuracies on four small tasks."""
    rows: list[tuple[Cell, ...]] = []
    teachers = {task: results.find(NAME, task, "teacher") for task in METRICS}
    rows.append((Text("(the teacher)", "（教师）"), *(_score(runs) for runs in teachers.values())))
    for method in METHODS:
        scores = [
            _score(runs_of(results, task, method, (epochs_of(results, task) or [""])[-1])) for task in METRICS
        ]
        rows.append((TITLES.get(method, f"`{method}`"), *scores))
    return Table(
        name="distillation-glue",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=tuple(
            line
            for task in MADE
            for line in (
                f"lianzhi train recipes/{task}-teacher.yaml -o out/{task}-teacher",
                f"python benchmarks/distillation.py --task {task}",
            )
        ),
        reads=(NAME,),
    )


def _score(runs: list[Run]) -> Cell:
    return f"{cells.share(runs, 'value')} ({len(runs)})" if runs else text.NOT_YET
