"""Calibration data for a file: batches checked, then run through ONNX Runtime while statistics are kept.

The ranges take one pass and the histograms a second one, so that no more than one batch's values are held.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lianzhi import deploy
from lianzhi.deploy.session import Session, feeds
from lianzhi.errors import DataError
from lianzhi.quantize.observers import Statistics
from lianzhi.quantize.onnx_files.flat import told_apart
from lianzhi.quantize.onnx_files.net import Net
from lianzhi.tasks import Batch

Feeds = dict[str, np.ndarray]


def checked_batches(calibration: Iterable[Any], session: Session) -> list[Feeds]:
    """Every batch as arrays by the names of the file's inputs.

    A batch is a dict of arrays or tensors by name, or one array for a file of one input, a tuple in the file's
    order, a task's `Batch`, or a pair of inputs and labels. Raises `DataError` that names the batch, for data
    that are empty, not finite, or of another shape or type than the inputs.
    """
    if isinstance(calibration, (torch.Tensor, np.ndarray, dict, str)) or not isinstance(
        calibration, Iterable
    ):
        raise DataError(
            f"calibration must be an iterable of batches, not {type(calibration).__name__}; "
            f"put one batch into a list: [batch]"
        )
    batches = []
    for index, item in enumerate(calibration):
        try:
            arrays = feeds(_inputs(item, len(session.inputs)), session.inputs)
        except DataError as error:
            raise DataError(f"calibration batch {index}: {error}") from None
        except (TypeError, ValueError) as error:
            raise DataError(f"calibration batch {index} holds no arrays of numbers ({error})") from None
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(
                    f"calibration batch {index}: input '{name}' holds NaN or infinite values; remove them"
                )
        if all(array.size for array in arrays.values()):
            batches.append(arrays)
    if not batches:
        raise DataError(
            "the calibration data are empty; give at least one batch, better a few hundred samples"
        )
    return batches


def observe(proto: Any, names: list[str], batches: list[Feeds], *, histogram: bool) -> dict[str, Statistics]:
    """Statistics of these values of a model over all batches, of the part that their readers tell apart."""
    net = Net(proto)
    parts = {name: told_apart(net, name) for name in names}
    seen = {name: Statistics() for name in names}
    with watched(proto, names) as run:
        for index, batch in enumerate(batches):
            for name, values in run(batch, index):
                if not values.isfinite().all():
                    raise DataError(
                        f"the model's own values are not finite on calibration batch {index}, first at '{name}'; "
                        f"check the weights, and that the data are preprocessed as in training"
                    )
                seen[name].add_range(values.clamp(*parts[name]))
        for index, batch in enumerate(batches if histogram else []):
            for name, values in run(batch, index):
                seen[name].add_counts(values.clamp(*parts[name]))
    return {name: statistics for name, statistics in seen.items() if statistics.batches}


@contextmanager
def watched(proto: Any, names: list[str], *, alone: bool = False) -> Iterator[Any]:
    """A function of feeds that yields each of these values by name, computed by ONNX Runtime.

    With `alone` the model's own results are not computed, nor what only they need.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    given = {item.name for item in model.graph.input}
    known = {item.name: item for item in (*model.graph.value_info, *model.graph.output)}
    if alone:
        del model.graph.output[:]
    present = {item.name for item in model.graph.output}
    for name in names:
        if name not in given | present:
            empty = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            model.graph.output.append(known.get(name, empty))
    with tempfile.TemporaryDirectory(prefix="lianzhi-") as folder:
        file = Path(folder) / "watched.onnx"  # not checked: results without a shape are no valid ONNX
        onnx.save_model(model, str(file), save_as_external_data=True, location="watched.data")
        session = deploy.load(file, runtime="onnxruntime")
        places = {name: index for index, name in enumerate(session.outputs)}

        def run(batch: Feeds, index: int) -> Iterator[tuple[str, torch.Tensor]]:
            try:
                results = session.run(batch)
            except DataError as error:
                raise DataError(f"calibration batch {index}: {error}") from None
            for name in names:
                values = batch[name] if name in given else results[places[name]]
                if values.size:
                    yield name, torch.from_numpy(np.ascontiguousarray(values))

        yield run


def one_sample(batch: Feeds, session: Session) -> Feeds:
    """The first sample of a batch, where every input leaves the batch free; else the batch as it is."""
    sizes = {len(array) if array.ndim else 0 for array in batch.values()}
    if len(sizes) != 1 or any(not port.shape or port.shape[0] is not None for port in session.inputs):
        return batch
    return {name: np.ascontiguousarray(array[:1]) for name, array in batch.items()}


def _inputs(item: Any, count: int) -> Any:
    """The inputs of a batch, without labels."""
    if isinstance(item, Batch):
        item = item.inputs
    pair = isinstance(item, (tuple, list)) and len(item) == 2
    if pair and (count == 1 or isinstance(item[0], (tuple, list, dict))):
        return item[0]
    return item
