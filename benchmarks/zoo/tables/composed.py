"""Whole chains: what was made for each goal, and the original and what each recipe makes of it."""

from __future__ import annotations

from lianzhi.report import format
from zoo import cells, fronts, text
from zoo.goals import FAMILIES, GOALS, dense_row, speeds, standings
from zoo.results import Results, Run
from zoo.table import Entry, Table
from zoo.text import Cell, Text

NAME = "composed"
COMMANDS = ("python benchmarks/composed.py",)
BOARDS = {"sst2": "sst2", "cifar10": "cifar10", "fashion_mnist": "fashion_mnist"}
STEPS = Text("steps", "步骤")
LATENCY = Text("latency", "延迟")
FASTER = Text("over the best float", "比最快浮点")


def goals(results: Results) -> Table:
    """A row for each goal of each model: the recipe made for it, and whether the goal's rule holds."""
    rows: list[tuple[Cell, ...]] = []
    for family in FAMILIES:
        found = standings(family, {name: results.find(NAME, name) for name in family.recipes})
        for goal in GOALS:
            made, better = goal.made(family, found), goal.better(family, found)
            start = (family.title, goal.title, f"`{family.made_for[goal.name]}`")
            if made is None:
                rows.append((*start, text.NOT_YET, *(text.ABSENT,) * 7))
                continue
            rows.append(
                (
                    *start,
                    format.metric_change(made.value, made.value + made.lost),
                    cells.size(made.bytes),
                    cells.times(made.smaller),
                    format.milliseconds(made.latency_ms),
                    cells.times(1 / made.time),
                    cells.verdict(goal.met(made)),
                    f"`{better.recipe}`" if better else text.ABSENT,
                    str(made.runs),
                )
            )
    return Table(
        name="goals",
        title=Text("The smallest, the fastest, and within half a point", "最小、最快与半个点以内"),
        about=Text(
            "A recipe is made for each goal of each model, its settings by what the part cut off the training data says; but earlier forms "
            "of `sst2-chain` (two) and `fashion-half-point` (one) had been counted on the reported split before, and another of "
            "`sst2-half-point`, which kept only the tokens of the training texts and missed the rule, after it. Whether the goal's rule "
            "holds is read from that split, against the dense model that the chain begins with; if another recipe of the table below "
            "holds to the rule and is better at it, its name is in the last column but one. The rules. "
            + ". ".join(f"*{goal.title.en}*: {goal.rule.en}" for goal in GOALS)
            + ".",
            "为每个模型的每个目标各做一份配方，设置由训练数据切出的部分决定；但 `sst2-chain` 之前的两种做法与 `fashion-half-point` "
            "之前的一种做法曾在报告集上算过；`sst2-half-point` 之后另算过一种，只留训练文本的词元，未守住规则。"
            "目标的规则是否成立看报告集，与流程起点的未压缩模型相比；"
            "若下表中另有配方守住规则且做得更好，倒数第二列给出其名。规则："
            + "。".join(f"*{goal.title.zh}*：{goal.rule.zh}" for goal in GOALS)
            + "。",
        ),
        heads=(
            text.MODEL,
            Text("goal", "目标"),
            Text("recipe", "配方"),
            text.LOST,
            text.FILE,
            text.SMALLER,
            LATENCY,
            FASTER,
            Text("rule met?", "规则达到？"),
            Text("better on record", "更好的记录"),
            text.SEEDS,
        ),
        rows=tuple(rows),
        commands=COMMANDS,
        reads=(NAME,),
    )


def table(results: Results) -> Table:
    """Every recipe of the benchmark, those without a run as well."""
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for family in FAMILIES:
        runs = {name: results.find(NAME, name) for name in family.recipes}
        sides = fronts.on_fronts(standings(family, runs))
        for recipe in family.recipes:
            if runs[recipe]:
                rows.append(_row(recipe, runs[recipe], sides.get(recipe, [])))
                entries += _entries(recipe, runs[recipe])
            else:
                rows.append((f"`{recipe}`", text.ABSENT, text.ABSENT, text.NOT_YET, *(text.ABSENT,) * 9))
    return Table(
        name="composed",
        title=Text("Composed recipes", "组合配方"),
        about=Text(
            "A trained model goes in, and one recipe after another prunes, distils and quantizes or packs it and picks the runtime. Accuracy "
            "is of the reported split by the file that ships; speed at batch 1 is against the original in eager PyTorch, and against the "
            "fastest float of the original in any runtime of the machine, timed in the same call. A packed file is unpacked to run. The last "
            "but one column says on which front of its model a recipe is: accuracy against bytes, against time.",
            "输入一个训练好的模型，由一份或相继几份配方完成剪枝、蒸馏、量化或打包并选择运行时。准确率为部署文件在报告集上的结果；批 1 的加速比分别相对 PyTorch 即时执行的原始模型，"
            "以及本机所有运行时中最快的浮点原始模型，二者在同一次调用中计时。打包文件运行前先解包。倒数第二列说明配方在其模型的哪条前沿上：准确率与字节、准确率与时间。",
        ),
        heads=(
            Text("recipe", "配方"),
            STEPS,
            Text("before, %", "之前 %"),
            Text("after, %", "之后 %"),
            text.LOST,
            text.PARAMETERS,
            text.FILE,
            text.SMALLER,
            LATENCY,
            Text("over eager", "比即时执行"),
            FASTER,
            Text("on the front", "在前沿上"),
            text.SEEDS,
        ),
        rows=tuple(rows),
        commands=COMMANDS,
        reads=(NAME,),
        entries=tuple(entries),
    )


def _row(recipe: str, runs: list[Run], sides: list[str]) -> tuple[Cell, ...]:
    """What a recipe makes of the dense model."""
    before, last = [dense_row(run["rows"]) for run in runs], [run["rows"][-1] for run in runs]
    speed = [speeds(run) for run in runs]
    return (
        f"`{recipe}`",
        " → ".join(row["step"] for row in runs[0]["rows"][1:]),
        cells.share(before, "value"),
        cells.share(last, "value"),
        cells.change(last, "value", cells.mean(before, "value")),
        format.count(cells.mean(last, "parameters")),
        cells.size(cells.mean(last, "bytes")),
        cells.ratio(cells.mean(before, "bytes"), cells.mean(last, "bytes")),
        format.milliseconds(cells.mean(last, "latency_ms")),
        cells.times(cells.mean(speed, "eager")),
        cells.times(cells.mean(speed, "float")),
        Text(_sides(sides, fronts.SIDES, 0, ", "), _sides(sides, fronts.SIDES, 1, "、"))
        if sides
        else text.ABSENT,
        cells.count(runs),
    )


def _sides(sides: list[str], words: dict[str, Text], language: int, between: str) -> str:
    return between.join(words[side][language] for side in sides)


def _entries(recipe: str, runs: list[Run]) -> list[Entry]:
    """The result of a recipe as a point; on the text board its time is a share of the best float's."""
    last = [run["rows"][-1] for run in runs]
    board = BOARDS.get(runs[0]["task"])
    if board is None:
        return []
    best = cells.mean([speeds(run) for run in runs], "float")
    time = (1 / best if best else None) if board == "sst2" else cells.mean(last, "latency_ms")
    return [
        Entry(board, recipe, "composed", cells.mean(last, "value") or 0.0, cells.mean(last, "bytes"), time)
    ]
