"""Folders such as a user of `lianzhi init` has: a model in a Python file, images, texts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

NET = """
import pathlib
from torch import nn

pathlib.Path(__file__).with_name("was-run").touch()


class Net(nn.Module):
    def __init__(self, num_classes=10, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
"""


def write_net(folder: Path, *, weights: str | None = None, classes: int = 3, text: str = NET) -> None:
    """`net.py`, and weights that fit its class."""
    (folder / "net.py").write_text(text)
    if weights is not None:
        body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        whole = nn.ModuleDict({"body": body, "head": nn.Linear(8, classes)})
        if weights.endswith(".safetensors"):
            save_file(whole.state_dict(), folder / weights)
        else:
            torch.save(whole.state_dict(), folder / weights)


def write_photos(
    folder: Path, *, each: int = 12, side: int = 12, classes: tuple[str, ...] = ("cat", "dog", "owl")
) -> None:
    """One folder a class, each of a colour under noise."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        colour = np.roll([200, 60, 60], number)
        for image in range(each):
            noise = generator.normal(0, 40, (side, side, 3))
            Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(
                folder / name / f"{image}.png"
            )


def write_reviews(file: Path, *, rows: int = 80, header: str = "text,label") -> None:
    """Texts of two classes."""
    lines = [
        f"a {'good' if row % 2 else 'bad'} film with number {row},{'yes' if row % 2 else 'no'}"
        for row in range(rows)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *lines]) + "\n")


def write_one_part(folder: Path, *, rows: int = 160) -> None:
    """ImageNet's images of one part, and no other: a Parquet file beside the names of all classes."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    images = []
    for _ in range(rows):
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), np.uint8)).save(stream, "PNG")
        images.append({"bytes": stream.getvalue(), "path": None})
    pq.write_table(pa.table({"image": images, "label": list(range(rows))}), folder / "even.parquet")
    lines = [f"{number}\tn{number:08d}\tname {number}" for number in range(1000)]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n")
