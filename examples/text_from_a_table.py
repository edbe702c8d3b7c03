"""Texts in a CSV file: a BiLSTM over words is trained on them, quantized, and asked.

python examples/text_from_a_table.py [FOLDER]
"""

import csv
import random
import sys
from pathlib import Path

import lianzhi as lz

GOOD, BAD = ("lovely", "crisp", "clever", "warm"), ("dull", "stale", "bitter", "slow")
THINGS = ("soup", "film", "room", "song")


def reviews(count, seed=0):
    """Made-up reviews, and whether they praise."""
    draw = random.Random(seed)
    for number in range(count):
        praise = number % 2
        first, second = draw.sample(GOOD if praise else BAD, 2)
        yield (
            f"a {first} {draw.choice(THINGS)} and a {second} {draw.choice(THINGS)}",
            "good" if praise else "bad",
        )


output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples/text")
output.mkdir(parents=True, exist_ok=True)
with open(output / "reviews.csv", "w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([("text", "label"), *dict(reviews(600)).items()])

task = lz.task("text", data=output / "reviews.csv", tokenizer="words")
print(task)
model = lz.model(
    "bilstm", vocabulary=task.preprocess.vocabulary, num_classes=2, width=16, hidden=16, linear=16
)
result = lz.compress(
    model,
    task,
    steps=[
        lz.Train(epochs=4, batch_size=16, optimizer="adam", lr=0.01, weight_decay=0),
        lz.Quantize(calibration=32),
    ],
    target="onnxruntime",
    output=output / "result",
    measure=lz.Measure(batches=(1,), repeats=10, threads=1),
    force=True,
    progress=False,
)
print(result.table())
print(f"ask it:  lianzhi predict {output / 'result'} 'a crisp film and a warm room'")
