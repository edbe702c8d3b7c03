"""A pruned and distilled text classifier beside its original."""

from __future__ import annotations

from lianzhi.report import format
from zoo import cells, text
from zoo.results import Results
from zoo.table import Entry, Table
from zoo.text import Cell, Text

TITLE = Text("BERT pruned: heads and feed-forward width", "剪枝后的 BERT：注意力头与前馈宽度")
ABOUT = Text(
    "`recipes/sst2-prune.yaml`: more than half of the encoder's weights go, two epochs of distillation bring the accuracy back. "
    "SST-2 dev, each of its 872 sentences alone and at its own length, ONNX Runtime float32, in turns.",
    "`recipes/sst2-prune.yaml`：剪去编码器一半以上的权重，再经两轮蒸馏恢复准确率。SST-2 dev，872 个句子逐句按原长运行，ONNX Runtime float32，交替计时。",
)
HEADS: tuple[Cell, ...] = (
    Text("artifact", "产物"),
    text.ACCURACY,
    text.LOST,
    Text("encoder weights", "编码器权重"),
    Text("removed", "剪去"),
    Text("sentences/s", "句/秒"),
    text.SPEEDUP,
    text.SEEDS,
)


def table(results: Results) -> Table:
    """The pruned text classifier."""
    name = "pruning_bert"
    rows: list[tuple[Cell, ...]] = []
    entries = []
    for parts in results.keys(name):
        run = results.find(name, *parts)[0]
        original, _, pruned = parts[0].partition(" -> ")
        for which, label in (("original", original), ("pruned", pruned)):
            one = run[which]
            after = which == "pruned"
            rows.append(
                (
                    f"`{label}`",
                    cells.share([one], "accuracy"),
                    cells.change([one], "accuracy", run["original"]["accuracy"]) if after else text.ABSENT,
                    format.count(one["encoder_parameters"]),
                    f"{100 * run['encoder_removed']:.1f} %" if after else text.ABSENT,
                    cells.rate(one["mean_ms"]),
                    cells.times(run["speed_up"]) if after else text.ABSENT,
                    "1",
                )
            )
        entries.append(
            Entry(
                "sst2",
                "BERT pruned and distilled",
                "pruned",
                run["pruned"]["accuracy"],
                None,
                1 / run["speed_up"],
            )
        )
    return Table(
        name="pruning-bert",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows) or ((text.NOT_YET, *(text.ABSENT,) * 7),),
        commands=(
            "lianzhi train recipes/sst2-teacher.yaml -o out/sst2-teacher",
            "lianzhi compress recipes/sst2-prune.yaml -o out/sst2-prune",
            "python benchmarks/pruning_bert.py out/sst2-teacher out/sst2-prune",
        ),
        reads=(name,),
        entries=tuple(entries),
    )
