"""Class names and probabilities for image files or sentences, by the deployed model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lianzhi import artifact, deploy, files
from lianzhi.errors import ArtifactError, DataError
from lianzhi.jobs.artifacts import Saved
from lianzhi.jobs.evaluate import checked_device
from lianzhi.tasks import Preprocess, TextPreprocess
from lianzhi.tasks.outputs import logits_of
from lianzhi.tasks.waiting import tracked

MOST_BYTES = 1 << 28


def predict(
    path: Path,
    inputs: Sequence[str],
    *,
    top: int = 5,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Return, for each image file or sentence, the `top` classes with their probabilities, best first."""
    saved = Saved(path)
    preprocess = saved.json("preprocess.json")
    if preprocess is None:
        raise ArtifactError(
            f"{path}: no preprocess.json, so it is not known how an image or a text becomes its input"
        )
    where = saved.where(runtime, precision)
    session = deploy.load(
        saved.model_file(where.runtime),
        runtime=where.runtime,
        precision=where.precision,
        threads=threads,
        device=checked_device(device),
    )
    make = _maker(saved, preprocess)
    labels = artifact.labels_of(saved.folder)
    results = []
    for name in tracked(inputs, "predict", shown=progress and len(inputs) > 1):
        logits = logits_of(session(make(name)))
        if logits.dim() != 2 or not logits.shape[1]:
            raise ArtifactError(
                f"{path}: its output has shape {tuple(logits.shape)}, not (batch, classes); it predicts no classes"
            )
        probabilities = torch.softmax(logits[0].float(), dim=-1)
        if not torch.isfinite(probabilities).all():
            raise ArtifactError(f"{path}: for {name!r:.80} its outputs are not finite; the model is damaged")
        if len(labels) > len(probabilities):
            raise ArtifactError(
                f"{saved.folder / 'labels.txt'}: {len(labels)} names for {len(probabilities)} outputs; restore it"
            )
        values, indices = probabilities.topk(min(top, len(probabilities)))
        classes = [
            {
                "index": int(index),
                "name": labels[index] if index < len(labels) else str(int(index)),
                "probability": float(value),
            }
            for value, index in zip(values, indices, strict=True)
        ]
        results.append({"input": name, "classes": classes})
    return results


def _maker(saved: Saved, preprocess: Any) -> Callable[[str], Any]:
    """From an INPUT argument to the model's input, as the artifact's preprocessing says."""
    if isinstance(preprocess, dict) and preprocess.get("kind") == "text":
        tokens = TextPreprocess.load(saved.folder)
        return lambda text: {key: torch.from_numpy(value) for key, value in tokens(_sentence(text)).items()}
    pixels = Preprocess.from_dict(preprocess)
    return lambda name: torch.from_numpy(pixels(read_image(name)))


def _sentence(text: str) -> str:
    if not text.strip():
        raise DataError("a sentence is empty; give words, in quotes")
    return text


def read_image(name: str) -> Any:
    """An image file as a PIL image; raises `DataError` for one that cannot be read."""
    from PIL import Image, UnidentifiedImageError

    if not Path(name).exists():
        raise DataError(f"{name}: no such image file")
    try:
        with Image.open(io.BytesIO(files.read_bytes(name, MOST_BYTES))) as image:
            return image.copy()
    except ArtifactError as error:
        raise DataError(f"{error}; give an image file") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error) if isinstance(error, Image.DecompressionBombError) else "damaged, or no image"
        raise DataError(f"{name}: cannot be read as an image ({reason}); give a PNG or JPEG file") from None
