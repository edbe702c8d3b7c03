"""The loop: exact accumulation, NaN, best and last, validation, precision, memory format, progress."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake import FakeBatch, FakeTask
from torch import Tensor, nn

from lianzhi import train
from lianzhi.errors import ArtifactError, DataError, TrainingError
from lianzhi.train import precision, saved
from lianzhi.train.checkpoint import Checkpoint, read


def classifier(*extra: nn.Module, features: int = 6) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), *extra, nn.Linear(16, 3))


def fit(model: nn.Module, task: Any, **options: Any) -> train.History:
    keys = set(train.TrainOptions.keys())
    chosen = train.TrainOptions(
        **{"batch_size": 10, **{key: options.pop(key) for key in keys & options.keys()}}
    )
    return train.fit(model, task, chosen, progress=False, **options)


def test_it_learns_and_records() -> None:
    model, task = classifier(), FakeTask(samples=120, validation=60, noise=0.5)
    history = fit(model, task, epochs=6, lr=0.1, label_smoothing=0.1, warmup=0.2)
    assert [entry["epoch"] for entry in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert history.steps == 72
    assert history.best_value is not None
    assert history.best_value > 0.9
    assert history.epochs[-1]["loss"] < 0.8 * history.epochs[0]["loss"]
    assert model.training
    json.dumps(history.to_dict())
    assert train.History.from_dict(history.to_dict()) == history


def test_the_first_update_is_that_of_a_hand_written_loop() -> None:
    task = FakeTask(samples=40, noise=1.0)
    ours, theirs = classifier(), classifier()
    fit(ours, task, epochs=3, keep="last", clip=0.5, label_smoothing=0.1, weight_decay=0.01, augment=False)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for epoch in range(3):
        for batch in task.batches("train", 10, epoch=epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(theirs(batch.inputs), batch.labels, label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
            schedule.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [24, 30, 22])
def test_accumulation_is_one_large_batch_also_when_uneven(samples: int) -> None:
    """22 = 4·4 + 4 + 2: the last group has one batch of 4 and one of 2."""
    task = FakeTask(samples=samples)
    large, small = classifier().double(), classifier().double()
    task.parts = {name: (inputs.double(), labels) for name, (inputs, labels) in task.parts.items()}
    one = fit(large, task, epochs=2, batch_size=16, keep="last", augment=False)
    other = fit(small, task, epochs=2, batch_size=4, accumulate=4, keep="last", augment=False)
    assert one.steps == other.steps
    assert one.epochs[0]["loss"] == pytest.approx(other.epochs[0]["loss"], rel=1e-12)
    for mine, yours in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-10, atol=1e-12)


def test_nan_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    task = FakeTask(samples=40)
    calls = [0]

    def step(model: nn.Module, batch: FakeBatch) -> dict[str, Any]:
        calls[0] += 1
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
        return {"loss": loss * float("inf") if calls[0] == 7 else loss}

    with pytest.raises(
        TrainingError, match=r"the loss is inf at epoch 2, step 7 of 12; lower .* \(lr: 0.05\)"
    ) as caught:
        fit(classifier(), task, epochs=3, step=step, directory=tmp_path)
    assert f"the last good checkpoint is kept in {tmp_path / 'last.safetensors'}" in str(caught.value)
    kept = read(tmp_path / "last.safetensors")
    assert kept is not None
    assert kept.values["position"]["history"]["steps"] == 4
    assert all(tensor.isfinite().all() for tensor in kept.part("model").values())


def test_nan_in_the_data_without_a_folder() -> None:
    with pytest.raises(
        TrainingError, match=r"the loss is nan at epoch 1, step 1 of 2; .*no checkpoint was asked for"
    ):
        fit(classifier(), FakeTask(samples=10, poison=3), epochs=2)


def test_weights_that_explode_at_the_last_step_are_not_saved(tmp_path: Path) -> None:
    steps = [0]

    def explode(model: nn.Module) -> None:
        steps[0] += 1
        if steps[0] == 4:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"'0.weight' has NaN or infinite values after step 4"):
        fit(classifier(), FakeTask(samples=40), epochs=1, after_step=explode, directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_stops_with_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import torch as library

    real, writes = library.save_file, [0]

    def save_file(tensors: Any, path: Path, metadata: Any) -> None:
        writes[0] += 1
        if writes[0] > 3:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(library, "save_file", save_file)
    with pytest.raises(ArtifactError, match="No space left on device"):
        fit(
            classifier(),
            FakeTask(),
            epochs=3,
            keep="last",
            evaluate=lambda model: 0.0,
            directory=tmp_path,
            save_every=1e-9,
        )
    kept = read(tmp_path / "last.safetensors")
    assert kept is not None
    assert kept.values["position"]["history"]["steps"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize(("keep", "expected"), [("best", 2), ("last", 4)])
def test_best_and_last(tmp_path: Path, keep: str, expected: int, folder: bool) -> None:
    values = iter([0.2, 0.9, 0.9, 0.5])
    weights: list[Tensor] = []
    model = classifier()

    def evaluate(model: nn.Module) -> float:
        assert not model.training
        weights.append(next(model.parameters()).detach().clone())
        return next(values)

    history = fit(
        model, FakeTask(), epochs=4, keep=keep, evaluate=evaluate, directory=tmp_path if folder else None
    )
    assert (history.best_epoch, history.best_value) == (2, 0.9)
    assert torch.equal(next(model.parameters()), weights[expected - 1])


def test_a_metric_of_nan_is_never_best() -> None:
    values = iter([float("nan"), 0.1, float("nan")])
    assert fit(classifier(), FakeTask(), epochs=3, evaluate=lambda model: next(values)).best_epoch == 2


def test_without_a_validation_part_the_last_epoch_counts() -> None:
    task = FakeTask(validation=0)
    history = fit(classifier(), task, epochs=2)
    assert history.best_epoch is None
    assert [entry["metric"] for entry in history.epochs] == [None, None]


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps", "entries"),
    [(1.5, None, 8, 2), (3, 7, 7, 2), (0, None, 0, 0), (0.01, None, 1, 1)],
)
def test_parts_of_an_epoch(epochs: float, max_steps: int | None, steps: int, entries: int) -> None:
    history = fit(classifier(), FakeTask(), epochs=epochs, max_steps=max_steps)
    assert (history.steps, len(history.epochs)) == (steps, entries)


def test_the_default_metric_counts_every_sample_once() -> None:
    task = FakeTask(validation=23)
    history = fit(classifier(), task, epochs=1, batch_size=5, keep="last")
    model = classifier()
    fit(model, task, epochs=1, batch_size=5, keep="last")
    inputs, labels = task.parts["validation"]
    assert history.epochs[0]["metric"] == pytest.approx(
        float((model(inputs).argmax(1) == labels).double().mean())
    )


def test_terms_are_means_over_samples() -> None:
    def step(model: nn.Module, batch: FakeBatch) -> dict[str, Any]:
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
        return {"loss": loss, "terms": {"ids": batch.ids.double().mean(), "one": 1.0}}

    history = fit(classifier(), FakeTask(samples=23), epochs=1, step=step)
    assert history.epochs[0]["terms"] == pytest.approx({"ids": 11.0, "one": 1.0})


@pytest.mark.parametrize("result", [None, {}, {"loss": 1.0}, {"loss": torch.zeros(3)}])
def test_a_step_that_returns_no_loss_is_told(result: Any) -> None:
    with pytest.raises(TrainingError, match=r"it must return {'loss': a scalar tensor"):
        fit(classifier(), FakeTask(), epochs=1, step=lambda model, batch: result)


def test_an_empty_training_part_is_told() -> None:
    with pytest.raises(DataError, match="task 'fake' has no training samples"):
        fit(classifier(), FakeTask(samples=0), epochs=1)


def test_bf16_trains_float32_weights_and_gives_float32_outputs() -> None:
    kinds = []

    def step(model: nn.Module, batch: FakeBatch) -> dict[str, Any]:
        outputs = model(batch.inputs)
        kinds.append((outputs.dtype, (batch.inputs @ batch.inputs.T).dtype))
        return {"loss": nn.functional.cross_entropy(outputs, batch.labels)}

    model = classifier()
    history = fit(model, FakeTask(noise=0.5), epochs=3, step=step, precision="bf16", lr=0.1)
    assert set(kinds) == {(torch.float32, torch.bfloat16)}
    assert next(model.parameters()).dtype == torch.float32
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert not model._forward_hooks


@pytest.mark.parametrize(
    ("instructions", "seconds", "expected"),
    [
        ({}, {torch.float32: 2.0, torch.bfloat16: 1.0}, "f32"),
        ({"amx_bf16": True}, {torch.float32: 2.0, torch.bfloat16: 1.0}, "bf16"),
        ({"avx512_bf16": True}, {torch.float32: 2.0, torch.bfloat16: 1.0}, "bf16"),
        ({"avx512_bf16": True}, {torch.float32: 1.0, torch.bfloat16: 1.2}, "f32"),
        ({"avx512_bf16": True}, {torch.float32: 1.1, torch.bfloat16: 1.0}, "f32"),
    ],
)
def test_auto_precision_is_what_the_processor_is_quickest_in(
    monkeypatch: pytest.MonkeyPatch,
    instructions: dict[str, bool],
    seconds: dict[torch.dtype, float],
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    monkeypatch.setattr(precision, "product_seconds", seconds.__getitem__)
    precision.gains.cache_clear()
    assert precision.precision("auto", torch.device("cpu")) == expected
    precision.gains.cache_clear()


def test_products_are_timed_once_for_a_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    timed, real = [], precision.product_seconds

    def seconds(dtype: torch.dtype) -> float:
        timed.append((dtype, real(dtype)))
        return timed[-1][1]

    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    monkeypatch.setattr(precision, "product_seconds", seconds)
    precision.gains.cache_clear()
    chosen = {precision.precision("auto", torch.device("cpu")) for _ in range(3)}
    assert [dtype for dtype, _ in timed] == [torch.float32, torch.bfloat16]
    (_, single), (_, half) = timed
    assert half > 0
    assert chosen == {"bf16" if single >= precision.GAIN * half else "f32"}
    precision.gains.cache_clear()


class Viewing(nn.Module):
    """A model that does not run in channels-last order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(144, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.conv(inputs).view(len(inputs), -1))


def test_memory_format_is_chosen_and_put_back() -> None:
    task = FakeTask(samples=8, shape=(2, 6, 6))
    orders = []

    def after_step(model: nn.Module) -> None:
        weight = next(model.parameters())
        orders.append(weight.is_contiguous(memory_format=torch.channels_last))

    plain = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(144, 3))
    for model in (plain, Viewing()):
        fit(model, task, epochs=1, after_step=after_step)
        assert next(model.parameters()).is_contiguous()
    assert orders == [True, False]


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    train.fit(classifier(), FakeTask(), train.TrainOptions(epochs=2), title="warm")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("warm 2/2 · loss ")
    assert "top1 0." in lines[1]


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    train.fit(classifier(), FakeTask(), train.TrainOptions(epochs=2, batch_size=5), title="warm")
    assert "/20" in capsys.readouterr().err


def test_tuples_and_dicts_of_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(12, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.head(torch.cat([left, right], 1))

    class Pairs(FakeTask):
        kind = "tuple"

        def batches(self, *args: Any, **options: Any) -> Iterator[FakeBatch]:
            for batch in super().batches(*args, **options):
                pair = {"left": batch.inputs, "right": -batch.inputs}
                inputs = pair if self.kind == "dict" else tuple(pair.values())
                yield FakeBatch(inputs, batch.labels, batch.ids, batch.total)

    model, task = Two(), Pairs()
    other = copy.deepcopy(model)
    fit(model, task, epochs=1)
    task.kind = "dict"
    fit(other, task, epochs=1)
    assert torch.equal(model.head.weight, other.head.weight)


def test_best_without_its_file_is_an_older_last(tmp_path: Path) -> None:
    """The best file is of another epoch: the process died between the two files."""
    model, task = classifier(), FakeTask(noise=3.0)
    values = iter([0.5, 0.1, 0.9])
    fit(model, task, epochs=3, evaluate=lambda model: next(values), directory=tmp_path)
    found = read(tmp_path / "best.safetensors")
    assert found is not None
    saved.write(tmp_path / "best.safetensors", Checkpoint(found.tensors, {**found.values, "epoch": 1}))
    again = classifier()
    fit(again, task, epochs=3, evaluate=lambda model: 0.0, directory=tmp_path, resume=True)
    assert torch.equal(again[0].weight, model[0].weight)


def test_options_import_no_training_library() -> None:
    code = (
        "import sys; import lianzhi.train; assert not {'accelerate', 'safetensors.torch'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
