"""Classes with probabilities, or a score, for image files, sentences or pairs of them, by the deployed model."""

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
    """Return, for each image file or sentence, the `top` classes with their probabilities, best first.

    A model of pairs takes the inputs two by two. One with a single output and no class names gives its `score`. Of a
    text with more tokens than the model takes, `cut` is how many of them were read.
    """
    saved = Saved(path)
    preprocess = saved.json("preprocess.json")
    if preprocess is None:
        raise ArtifactError(
            f"{path}: no preprocess.json, so it is not known how an image or a text becomes its input; "
            f"give the artifact folder, or put its preprocess.json and tokenizer beside the file"
        )
    where = saved.where(runtime, precision)
    session = deploy.load(
        saved.model_file(where.runtime),
        runtime=where.runtime,
        precision=where.precision,
        threads=threads,
        device=checked_device(device),
    )
    tokens = TextPreprocess.load(saved.folder) if _of_texts(preprocess) else None
    make, size = _maker(tokens, preprocess)
    if len(inputs) % size:
        raise DataError(
            f"{path} takes pairs of sentences, and {len(inputs)} were given; give a second one for each, in quotes"
        )
    groups = [inputs[at : at + size] for at in range(0, len(inputs), size)]
    labels = artifact.labels_of(saved.folder)
    results = []
    for group in tracked(groups, "predict", shown=progress and len(groups) > 1):
        outputs = _outputs(path, session, make(*group), group)
        named: dict[str, Any] = dict(zip(("input", "second"), group, strict=False))
        if tokens is not None and tokens.cuts(*group):
            named["cut"] = tokens.max_length
        if len(labels) > len(outputs):
            raise ArtifactError(
                f"{saved.folder / 'labels.txt'}: {len(labels)} names for {len(outputs)} outputs; restore it"
            )
        if len(outputs) == 1 and not labels:
            results.append({**named, "score": float(outputs[0])})
        else:
            results.append({**named, "classes": _classes(outputs, labels, top)})
    return results


def _outputs(path: Path, session: Any, inputs: Any, given: Sequence[str]) -> torch.Tensor:
    """What the model says of one input: finite numbers, of shape (outputs,)."""
    logits = logits_of(session.by_name(inputs))
    if logits.dim() != 2 or not logits.shape[1]:
        raise ArtifactError(
            f"{path}: its output has shape {tuple(logits.shape)}, not (batch, classes); it predicts no classes"
        )
    outputs = logits[0].float()
    if not torch.isfinite(torch.softmax(outputs, dim=-1)).all():
        raise ArtifactError(f"{path}: for {given[0]!r:.80} its outputs are not finite; the model is damaged")
    return outputs


def _classes(outputs: torch.Tensor, labels: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The likeliest classes, best first."""
    values, indices = torch.softmax(outputs, dim=-1).topk(min(top, len(outputs)))
    return [
        {
            "index": int(index),
            "name": labels[index] if index < len(labels) else str(int(index)),
            "probability": float(value),
        }
        for value, index in zip(values, indices, strict=True)
    ]


def _of_texts(preprocess: Any) -> bool:
    return isinstance(preprocess, dict) and preprocess.get("kind") == "text"


def _maker(tokens: TextPreprocess | None, preprocess: Any) -> tuple[Callable[..., Any], int]:
    """From INPUT arguments to the model's input, as the artifact's preprocessing says, and how many one input takes."""
    if tokens is not None:

        def encoded(*texts: str) -> dict[str, torch.Tensor]:
            made = tokens(*(_sentence(text) for text in texts))
            return {key: torch.from_numpy(value) for key, value in made.items()}

        return encoded, 2 if tokens.pairs else 1
    pixels = Preprocess.from_dict(preprocess)
    return lambda name: torch.from_numpy(pixels(read_image(name))), 1


def _sentence(text: str) -> str:
    if not text.strip():
        raise DataError("a sentence is empty; give words, in quotes")
    try:
        text.encode()
    except UnicodeEncodeError:  # what a shell gives of bytes in another encoding
        raise DataError(f"the sentence {text!r:.80} is not UTF-8 text; give it in UTF-8") from None
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
