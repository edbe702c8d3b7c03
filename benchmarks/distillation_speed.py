"""What a distillation step costs beside a loop by hand, and with kept logits beside training the student alone.

    OMP_NUM_THREADS=1 python benchmarks/distillation_speed.py

`step` is the training loop with kd and a teacher that runs, over a loop by hand of the same computation; the bar is
1.05. `cached` is the training loop with kd and logits that are kept, over the same loop on the labels alone; the bar is
1.15. Both are timed in turns, in processor time of the one thread, on BERTs from configs with made-up tokens.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
from records import Records
from torch import Tensor, nn
from torch.nn import functional

import lianzhi as lz
from lianzhi import train
from lianzhi.distill.methods import Logits, kd
from lianzhi.distill.methods.teacher import teacher_logits
from lianzhi.distill.teacher_cache import kept_of
from lianzhi.measure import both_in_turns

SIZES = {
    "tiny": {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
    "small": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
}
BARS = {"step": 1.05, "cached": 1.15}
LAYERS, STUDENT_LAYERS, WORDS = 4, 2, 2000
SAMPLES, BATCH, TOKENS = 96, 16, 32
TEMPERATURE, ALPHA, LR = 4.0, 0.9, 0.01
OPTIONS = train.TrainOptions(
    epochs=1, batch_size=BATCH, lr=LR, optimizer="sgd", schedule="constant", keep="last"
)

Batches = list[tuple[dict[str, Tensor], Tensor]]


def bert(size: str, layers: int) -> nn.Module:
    """A classifier without dropout, so that all loops compute the same."""
    import transformers

    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(vocab_size=WORDS, num_hidden_layers=layers, **SIZES[size], **dropout)
    return transformers.BertForSequenceClassification(config)


def made_up() -> Batches:
    """Batches of random tokens and labels."""
    ids = torch.randint(5, WORDS, (SAMPLES, TOKENS))
    labels = torch.randint(2, (SAMPLES,))
    return [
        ({"input_ids": ids[rows], "attention_mask": torch.ones_like(ids[rows])}, labels[rows])
        for rows in torch.arange(SAMPLES).split(BATCH)
    ]


def by_hand(student: nn.Module, teacher: nn.Module, batches: Batches) -> None:
    """The same computation, as one would write it without a library."""
    optimizer = torch.optim.SGD(student.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    student.train()
    for inputs, labels in batches:
        optimizer.zero_grad()
        logits = student(**inputs).logits
        with torch.no_grad():
            wanted = teacher(**inputs).logits
        soft = functional.kl_div(
            functional.log_softmax(logits / TEMPERATURE, 1),
            functional.log_softmax(wanted / TEMPERATURE, 1),
            reduction="batchmean",
            log_target=True,
        )
        loss = ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * functional.cross_entropy(logits, labels)
        loss.backward()
        loss.item()
        optimizer.step()


def compare(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Both quotients of one size."""
    torch.manual_seed(0)
    teacher, student, batches = bert(size, LAYERS).eval(), bert(size, STUDENT_LAYERS), made_up()
    task = lz.Task(train=batches, num_classes=2)
    everything = torch.cat([teacher_logits(teacher, inputs) for inputs, _ in batches])
    students = [copy.deepcopy(student) for _ in range(4)]

    def fit(model: nn.Module, source: Logits | None) -> None:
        step: Any = None
        if source is not None:
            step = kd.make_step(source, temperature=TEMPERATURE, alpha=ALPHA, loss=task.loss)
        train.fit(model, task, OPTIONS, step=step, progress=False)

    running, kept = Logits(teacher), Logits(teacher, lambda: kept_of(everything))
    pairs = {
        "step": (lambda: by_hand(students[0], teacher, batches), lambda: fit(students[1], running)),
        "cached": (lambda: fit(students[2], None), lambda: fit(students[3], kept)),
    }
    found = {}
    for name, (original, trial) in pairs.items():
        turns = both_in_turns(original, trial, rounds, clock=time.process_time_ns)
        updates = len(batches)
        found[name] = {
            "ratio": round(turns.ratio, 4),
            "original_ms": round(turns.original_ms / updates, 2),
            "trial_ms": round(turns.trial_ms / updates, 2),
            "bar": BARS[name],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = Records("distillation_speed")
    for size in options.sizes:
        record = compare(size, options.rounds)
        records.add(size, record)
        for name, found in record.items():
            print(
                f"{size:6} {name:7} {found['trial_ms']:8.2f} ms an update, {found['original_ms']:8.2f} ms beside it: "
                f"x{found['ratio']:.3f} (bar {found['bar']})"
            )


if __name__ == "__main__":
    main()
