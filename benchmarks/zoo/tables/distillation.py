"""Text students of every method beside their teacher on SST-2, in the form that the field knows."""

from __future__ import annotations

from collections.abc import Mapping

from distillation import TASKS, beyond, gain
from text_students import ALONE, BARS, BEYOND, FINE, GAINS, METHODS, schedule_of

from lianzhi.report import format
from zoo import cells, text
from zoo.results import Results, Run
from zoo.table import Entry, Table
from zoo.text import Cell, Text

NAME = "distillation"
TITLES: dict[str, Cell] = {
    "fine-tuned": Text(
        "the first 3 layers of the pre-trained BERT, fine-tuned", "预训练 BERT 的前 3 层，微调"
    ),
    "alone": Text("3 layers of the teacher, on the labels alone", "教师的 3 层，仅用标签训练"),
    "tinybert general": Text("`tinybert`, general distillation first", "`tinybert`，先做通用蒸馏"),
    "mobilebert": Text("`mobilebert`, small", "`mobilebert`，小型"),
    "bilstm alone": Text("BiLSTM, on the labels alone", "BiLSTM，仅用标签训练"),
    "bilstm": Text("BiLSTM, distilled", "BiLSTM，蒸馏"),
    "pkd from scratch": Text("`pkd`, from scratch", "`pkd`，从零开始"),
}
EAGER, OURS = "pytorch f32", "onnxruntime f32"
TITLE = Text("Distillation: BERT on SST-2", "蒸馏：SST-2 上的 BERT")
ABOUT = Text(
    "The teacher is a 6-layer BERT, 384 wide, fine-tuned by `lianzhi train`; every student is one `distill` step, with the "
    "options of `benchmarks/text_students.py`. SST-2 dev (872 sentences) by the deployed file; the epoch that is kept is chosen on a part cut off the training "
    "data. Latency is that of the dev sentence of median length at batch 1. The bar is a share of the teacher's accuracy, of "
    "`theseus_plus` a deviation of the seeds above `theseus`; "
    "beside it, points above the same student that learned from the labels alone, of which some methods have a bar too, and "
    "points above what papers compare with: as many first layers of the pre-trained model, fine-tuned. The student on the "
    "labels alone begins with layers of the teacher, which has learned the task. `minilm`, `theseus` and `theseus_plus` have a stage more than it, "
    "and so twice its epochs. `mobilebert` has a teacher of its own, an "
    "inverted-bottleneck BERT that read a corpus and then learned the task. `tinybert` begins with random weights; in a row of its own "
    "it first learns from the pre-trained BERT on a small corpus. N: so many more texts were made of each one, those of the "
    "BiLSTM by masks and n-grams alone.",
    "教师为 6 层、宽 384 的 BERT，由 `lianzhi train` 微调；每个学生是一个 `distill` 步骤，选项见 `benchmarks/text_students.py`。SST-2 dev（872 句），以部署文件评估；"
    "保留哪一轮由训练数据切出的部分决定。延迟取 dev 中长度居中的句子、批 1。目标为教师准确率的占比，`theseus_plus` 则为比 `theseus` 高出一个标准差；"
    "其旁为比仅用标签训练的同一学生高出的点数，部分方法对此也有目标；再旁为比论文所用基线高出的点数："
    "预训练模型的前若干层，直接微调。仅用标签训练的学生从教师的层开始，教师已学过该任务。`minilm`、`theseus` 和 `theseus_plus` 比它多一个阶段，因此轮数是它的两倍。"
    "`mobilebert` 有自己的教师：先读过语料、再学习该任务的反向瓶颈 BERT。`tinybert` 从随机权重开始；另有一行先在小语料上向预训练 BERT 学习。N：由每条文本另外生成的文本数，BiLSTM 的只用掩码和 n-gram。",
)
HEADS: tuple[Cell, ...] = (
    text.METHOD,
    text.ACCURACY,
    text.SEEDS,
    Text("of the teacher's", "占教师"),
    text.BAR,
    Text("over the labels alone", "比仅用标签"),
    Text("over fine-tuned", "比直接微调"),
    Text("layers", "层数"),
    Text("width/FFN", "宽/FFN"),
    text.PARAMETERS,
    Text("outside tables", "词表之外"),
    text.FILE,
    text.SMALLER,
    Text("eager PyTorch", "PyTorch 即时执行"),
    "ONNX Runtime",
    Text("over its eager", "比教师即时执行"),
    Text("over its ONNX Runtime", "比教师 ONNX Runtime"),
    Text("epochs a stage", "每阶段轮数"),
)


def table(results: Results) -> Table:
    """The table that the field knows."""
    teachers = results.find(NAME, "sst2", "teacher")
    teacher = teachers[0] if teachers else None
    epochs = epochs_of(results, "sst2") or [text.ABSENT]
    rows = [_row(Text("(the teacher)", "（教师）"), teachers, teacher, None, (text.ABSENT,) * 2, text.ABSENT)]
    entries = [_entry("BERT teacher", "float", teachers, teacher)] if teachers else []
    for count in epochs:
        for method in METHODS:
            runs = runs_of(results, "sst2", method, count)
            rows.append(
                _row(
                    _title(method, runs),
                    runs,
                    teacher,
                    _beyond(method, *_both(results, method, BEYOND, count)) or BARS.get(method),
                    (
                        _over(*_both(results, method, ALONE, count), GAINS.get(method)),
                        _over(*_both(results, method, FINE, count)),
                    ),
                    schedule_of(method, float(count.partition(" ")[0])) if count != text.ABSENT else count,
                )
            )
            if runs:
                entries.append(_entry(method, "distilled", runs, teacher))
    return Table(
        name="distillation-sst2",
        title=TITLE,
        about=ABOUT,
        heads=HEADS,
        rows=tuple(rows),
        commands=(
            "lianzhi train recipes/sst2-teacher.yaml -o out/sst2-teacher",
            "python benchmarks/ib_bert.py",
            "python benchmarks/distillation.py",
        ),
        reads=(NAME,),
        entries=tuple(entries),
    )


def _title(method: str, runs: list[Run]) -> Cell:
    """The method's name, and what the teacher has where it is another one."""
    title, own = TITLES.get(method, f"`{method}`"), cells.mean(runs, "teacher_value")
    if own is None or isinstance(title, str):
        return title
    return Text(f"{title.en}; its teacher {100 * own:.2f}", f"{title.zh}；其教师 {100 * own:.2f}")


def _row(
    name: Cell,
    runs: list[Run],
    teacher: Run | None,
    bar: float | Text | None,
    over: tuple[Cell, Cell],
    epochs: str,
) -> tuple[Cell, ...]:
    """A method; `teacher` is what it is compared with, `over` what it is above two other students.

    `bar` is a share of the teacher's, or the whole cell.
    """
    goal: Cell = text.ABSENT if bar is None else bar if isinstance(bar, Text) else f"{100 * bar:g} %"
    if not runs:
        return (name, text.NOT_YET, text.ABSENT, text.ABSENT, goal, *(text.ABSENT,) * 12, epochs)
    run, value = runs[-1], cells.mean(runs, "value") or 0.0
    of = value / teacher["value"] if teacher else None
    if isinstance(bar, float) and of is not None:
        verdict = cells.verdict(of >= bar)
        goal = Text(f"{goal}: {verdict.en}", f"{goal}:{verdict.zh}")
    itself = run is teacher
    eager, ours = _latency(runs, EAGER), _latency(runs, OURS)
    before = {key: _latency([teacher], key) if teacher else None for key in (EAGER, OURS)}
    return (
        name,
        cells.share(runs, "value"),
        cells.count(runs),
        text.ABSENT if of is None or itself else f"{100 * of:.1f} %",
        goal,
        *over,
        str(run["layers"]),
        f"{run['width']}/{run['ffn']}" if run["width"] else text.ABSENT,
        format.count(run["parameters"]),
        format.count(run["outside_tables"]),
        cells.size(run["bytes"]),
        text.ABSENT if itself or teacher is None else cells.ratio(teacher["bytes"], run["bytes"]),
        format.milliseconds(eager),
        format.milliseconds(ours),
        text.ABSENT if itself else cells.ratio(before[EAGER], ours),
        text.ABSENT if itself else cells.ratio(before[OURS], ours),
        epochs,
    )


def _both(
    results: Results, method: str, others: Mapping[str, str], epochs: str
) -> tuple[list[Run], list[Run]]:
    """A method's runs on SST-2 and those of what it is compared with, of the seeds that both have."""
    other = others.get(method)
    if other is None:
        return [], []
    return runs_of(results, "sst2", method, epochs, like=other), runs_of(
        results, "sst2", other, epochs, like=method
    )


def _beyond(method: str, runs: list[Run], others: list[Run]) -> Text | None:
    """How far a method is above another one, beside the larger deviation of the two."""
    found = beyond(runs, others)
    if found is None:
        return None
    verdict = cells.verdict(found[0] > found[1])
    points, deviation = (format.metric_change(value, 0.0) for value in found)
    return Text(
        f"{points} over `{BEYOND[method]}`, a deviation is {deviation.lstrip('+')}: {verdict.en}",
        f"比 `{BEYOND[method]}` {points}，标准差 {deviation.lstrip('+')}:{verdict.zh}",
    )


def _over(runs: list[Run], others: list[Run], least: float | None = None) -> Cell:
    """Points above another student; `least` is what there is to gain."""
    found = gain(runs, others)
    if found is None:
        return text.ABSENT
    points = format.metric_change(found, 0.0)
    if least is None:
        return points
    verdict = cells.verdict(found > least)
    return Text(f"{points}: {verdict.en}", f"{points}:{verdict.zh}")


def _latency(runs: list[Run], key: str) -> float | None:
    """The mean of the seeds that were timed."""
    return cells.mean([run["latencies"] for run in runs], key)


def _entry(label: str, kind: str, runs: list[Run], teacher: Run | None) -> Entry:
    """The point of a student; its time is a share of the teacher's in ONNX Runtime."""
    ours, before = _latency(runs, OURS), _latency([teacher], OURS) if teacher else None
    time = ours / before if ours and before else None
    return Entry("sst2", label, kind, cells.mean(runs, "value") or 0.0, cells.mean(runs, "bytes"), time)


def runs_of(results: Results, task: str, method: str, epochs: str, like: str | None = None) -> list[Run]:
    """The runs of a method on a task; of the seeds alone that the method `like` has too."""
    seeds = {parts[2:] for parts in results.keys(NAME) if parts[:2] == (task, like or method)}
    keys = [parts for parts in results.keys(NAME) if parts[:2] == (task, method) and parts[-1] == epochs]
    return [run for parts in keys if parts[2:] in seeds for run in results.find(NAME, *parts)]


def epochs_of(results: Results, task: str) -> list[str]:
    """The numbers of epochs on record for a task."""
    assert task in TASKS
    found = {parts[-1] for parts in results.keys(NAME) if parts[0] == task and len(parts) == 4}
    return sorted(found, key=lambda name: float(name.partition(" ")[0]))
