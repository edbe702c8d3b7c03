"""The page of a language: its sections in order, each a table with its command, its machines and what others published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo import published
from zoo.results import FACTS, VERSIONS, Machine, Results
from zoo.table import Table, markdown
from zoo.tables import (
    composed,
    deep_compression,
    deep_compression_coder,
    distillation,
    distillation_cnn,
    distillation_glue,
    latency_budget,
    low_bits,
    mixed_precision,
    pruning_bert,
    pruning_coverage,
    pruning_criteria,
    pruning_resnet56,
    pruning_weights,
    quantization,
    quantization_qat,
)
from zoo.text import Text, written

Maker = Callable[[Results], Table]
SECTIONS: tuple[tuple[str, Text, tuple[Maker, ...]], ...] = (
    ("composed", Text("Whole chains", "完整流程"), (composed.goals, composed.table)),
    (
        "image-classification",
        Text("Image classification", "图像分类"),
        (
            quantization.cifar10,
            quantization.imagenet,
            quantization_qat.images,
            low_bits.table,
            mixed_precision.table,
            pruning_criteria.table,
            pruning_resnet56.table,
            latency_budget.table,
            pruning_coverage.table,
            pruning_weights.table,
            deep_compression.images,
            deep_compression_coder.table,
            distillation_cnn.table,
        ),
    ),
    (
        "text-classification",
        Text("Text classification", "文本分类"),
        (
            distillation.table,
            distillation_glue.table,
            pruning_bert.table,
            quantization.sst2,
            quantization_qat.sst2,
            deep_compression.sst2,
        ),
    ),
)
COLUMNS = {
    "cpu": Text("processor", "处理器"),
    "cores": Text("cores", "核数"),
    "has_vnni": "VNNI",
    "has_amx": "AMX",
    "has_bf16": "bf16",
    "omp_num_threads": "OMP_NUM_THREADS",
    "python": "Python",
    "torch": "torch",
    "transformers": "transformers",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "lianzhi": "Lianzhi",
}
TITLE = Text("Model zoo", "模型库")
OTHER = Text("*[中文](zh/model_zoo.md)*", "*[English](../model_zoo.md)*")
INTRODUCTION = (
    Text(
        "What the methods of this project do, measured by the scripts in `benchmarks/`. `make zoo` writes this page and its charts "
        "from the JSON in `benchmarks/results/`, and a test holds it to that: no number here was typed by hand. Beneath a table "
        "stands the command that makes it in full; `make zoo QUICK=1` makes all of them once at small size, into `out/zoo-quick/`, "
        "to see that they run.",
        "本项目各方法的效果，由 `benchmarks/` 中的脚本测得。`make zoo` 根据 `benchmarks/results/` 中的 JSON 写出本页及其图表，并有测试保证二者一致："
        "本页没有任何手写的数字。每张表下方是完整重做该表的命令；`make zoo QUICK=1` 以小规模把所有表各做一遍，写入 `out/zoo-quick/`，用于确认它们能运行。",
    ),
    Text(
        "Where a number has several runs behind it, it is mean ± standard deviation, and the last column says of how many. "
        "`–` is what was not measured or does not apply, never a zero; *not measured yet* is a row whose run is still to come. "
        "Sizes are decimal (1 MB = 1,000,000 bytes). The test split chooses nothing: checkpoints, methods and budgets are chosen on a part "
        "cut off the training data.",
        "有多次运行的数字写作均值 ± 标准差，最后一列为次数。`–` 表示未测量或不适用，绝不是零；*尚未测量* 表示该行的运行还没有做。"
        "大小为十进制（1 MB = 1,000,000 字节）。测试集不参与任何选择：检查点、方法与预算均由训练数据切出的部分决定。",
    ),
    Text(
        "Figures that papers and other projects published stand apart, with their source. They are of other models, data and machines: "
        "they say what to expect of a method, not who is ahead.",
        "论文与其他项目公布的数字单独列出并注明来源。它们出自别的模型、数据与机器：可供判断一种方法的大致效果，不宜用来分高下。",
    ),
)
SMALL = Text(
    "**Made at small size, by `make zoo QUICK=1`: a few hundred samples, one seed, one epoch. It shows that every table can be made "
    "again, and nothing of the methods.**",
    "**由 `make zoo QUICK=1` 以小规模生成：几百个样本、一个种子、一轮训练。它只说明每张表都能重做，与各方法的优劣无关。**",
)
MADE = Text("Made by", "重做命令")
ON = Text("machine", "机器")
MACHINES = Text("Machines and versions", "机器与版本")
MACHINES_ABOUT = Text(
    "The letter under a table names the machine on which its runs were made. Where OMP_NUM_THREADS is empty, all cores were used.",
    "表下的字母指该表各次运行所在的机器。OMP_NUM_THREADS 为空表示使用全部核心。",
)
SOURCES = Text("Sources of what others published", "他人数字的来源")
YES_NO = {"True": Text("yes", "有"), "False": Text("no", "无")}


@dataclass
class Lettered:
    """Machines by letter, in the order in which the page first names them."""

    letters: dict[Machine, str]

    def of(self, machine: Machine) -> str:
        """The letter of a machine."""
        return self.letters.setdefault(machine, chr(ord("A") + len(self.letters)))


def tables(results: Results) -> dict[str, tuple[Table, list[Machine]]]:
    """Every table by its name, with the machines of the runs behind it."""
    found = {}
    for _, _, makers in SECTIONS:
        for maker in makers:
            results.used.clear()
            made = maker(results)
            found[made.name] = (made, results.machines(results.used))
    return found


def page(results: Results, language: str, charts: Callable[[str, str], list[str]]) -> str:
    """The whole page in Markdown. `charts` gives the paragraphs that show a section's charts."""
    lettered, made = Lettered({}), tables(results)
    parts = [f"# {written(TITLE, language)}", written(OTHER, language)]
    parts += [written(SMALL, language)] if results.small else []
    parts += [written(paragraph, language) for paragraph in INTRODUCTION]
    names = iter(made)
    for name, title, makers in SECTIONS:
        parts += [f"## {written(title, language)}", *charts(name, language)]
        for _ in makers:
            parts += _section(*made[next(names)], lettered, language)
    parts += _machines(lettered, language)
    return "\n\n".join([*parts, f"## {written(SOURCES, language)}", *published.sources()]) + "\n"


def _section(table: Table, machines: list[Machine], lettered: Lettered, language: str) -> list[str]:
    commands = "\n".join(table.commands)
    letters = ", ".join(lettered.of(machine) for machine in machines)
    where = f" ({written(ON, language)} {letters})" if letters else ""
    return [
        f"### {written(table.title, language)}",
        written(table.about, language),
        markdown(table.heads, table.rows, language),
        *(written(note, language) for note in table.notes),
        f"{written(MADE, language)}{where}:",
        f"```console\n{commands}\n```",
        *published.section(table.name, language),
    ]


def _machines(lettered: Lettered, language: str) -> list[str]:
    rows = [
        [letter, *(YES_NO.get(value, value) for _, value in machine)]
        for machine, letter in lettered.letters.items()
    ]
    heads = ["", *(COLUMNS[key] for key in (*FACTS, *VERSIONS))]
    return [
        f"## {written(MACHINES, language)}",
        written(MACHINES_ABOUT, language),
        markdown(heads, rows, language),
    ]
