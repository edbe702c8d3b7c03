"""Half of the latency, asked for and measured."""

from __future__ import annotations

from lianzhi.report import format
from zoo import cells, text
from zoo.results import Results
from zoo.table import Table
from zoo.text import Cell, Text


def table(results: Results) -> Table:
    """Half of the latency, asked for and measured."""
    name = "latency_budget"
    rows: list[tuple[Cell, ...]] = []
    for parts in results.keys(name):
        run = results.find(name, *parts)[0]
        model, runtime, _, batch = parts[0].split()
        rows.append(
            (
                f"`{model}`",
                f"{runtime} {run['precision']}",
                batch,
                f"{100 * run['budget']:.0f} %",
                f"{100 * run['share']:.1f} %",
                format.milliseconds(run["original_ms"]),
                format.milliseconds(run["pruned_ms"]),
                cells.times(1 / run["macs_left"]),
            )
        )
    heads = (
        text.MODEL,
        text.RUNTIME,
        Text("batch", "批"),
        Text("time asked for", "要求的时间占比"),
        Text("measured", "实测"),
        Text("before", "之前"),
        Text("after", "之后"),
        Text("fewer MACs", "MACs 减少"),
    )
    return Table(
        name="pruning-latency",
        title=Text("A latency budget, kept", "延迟预算是否兑现"),
        about=Text(
            "`lz.prune.plan(latency=0.5)` asks for half of the time on a runtime; a process of its own, which knows nothing of the search, "
            "measures what came out. Widths alone decide; nothing is trained, so there is no accuracy.",
            "`lz.prune.plan(latency=0.5)` 要求某运行时上一半的时间；由一个对搜索一无所知的独立进程测量结果。速度只取决于宽度；不做训练，故无准确率。",
        ),
        heads=heads,
        rows=tuple(rows) or ((text.NOT_YET, *(text.ABSENT,) * 7),),
        commands=("python benchmarks/latency_budget.py --bert out/sst2-teacher",),
        reads=(name,),
    )
