"""The one training loop.

A method gives it `step(model, batch) -> {"loss": mean over the local samples, "terms": {name: value}}`. Data
order, augmentation and torch's random numbers are functions of the seed and the position, and a checkpoint
holds weights, optimizer and position: a run that is killed ends, when resumed, with the same weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lianzhi.errors import DataError, TrainingError
from lianzhi.processes import from_leader, process, start_processes
from lianzhi.train import optimizers, schedules
from lianzhi.train.batch_norm import SharedBatchNorm
from lianzhi.train.default_step import Step, default_step
from lianzhi.train.device import check_device
from lianzhi.train.gradients import share_model, sum_gradients
from lianzhi.train.history import History
from lianzhi.train.interrupt import Interrupt
from lianzhi.train.options import TrainOptions
from lianzhi.train.precision import channels_last_works, mixed, precision
from lianzhi.train.progress import Bar
from lianzhi.train.saved import Saved
from lianzhi.train.totals import NotFinite, Totals
from lianzhi.train.validation import move, validate

if TYPE_CHECKING:
    from lianzhi.tasks import Batch, Task


def fit(
    model: nn.Module,
    task: Task,
    options: TrainOptions,
    *,
    step: Step | None = None,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    title: str = "train",
    device: str = "cpu",
    evaluate: Callable[[nn.Module], float] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> History:
    """Train a model in place.

    `directory` holds the last and the best checkpoint; with `resume`, training goes on from there. `evaluate`
    gives the value by which the best epoch is chosen (default: the task's first metric on its validation
    split, if it has one; without either the last epoch counts). `after_step` runs after each update. A step that
    has a method `at` is told before each update its number, from 0, and how many there are.

    Raises:
        TrainingError: the loss became NaN or infinite; the last good checkpoint is kept.
        ArtifactError: a checkpoint cannot be written or read.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved.
    """
    start_processes(device)
    if not task.has("train") or task.size("train") == 0:
        raise DataError(f"task '{task.name}' has no training samples; give it a training part")
    if evaluate is None and task.has("validation"):
        where = place(device)
        evaluate = lambda model: validate(model, task, batch_size=options.batch_size, device=where)  # noqa: E731
    training = model.training
    random = torch.get_rng_state()
    home = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    loop = Loop(model, task, options, step or default_step(task, options), seed, place(device))
    loop.evaluate, loop.after_step = evaluate, after_step
    try:
        with contextlib.ExitStack() as stack:
            loop.saved = Saved(directory, options, seed, task, resume=resume)
            loop.begin(stack, title=title, shown=progress and process()[0] == 0)
            return loop.run()
    finally:
        torch.set_rng_state(random)
        model.to(home)
        model.train(training)
        if loop.channels_last:
            model.to(memory_format=torch.contiguous_format)


def place(device: str) -> torch.device:
    """The device of this process: Accelerate's choice where there are several.

    >>> place("cpu")
    device(type='cpu')
    """
    chosen = check_device(device)
    if process()[1] == 1:
        return chosen
    from accelerate import PartialState

    return PartialState(cpu=chosen.type == "cpu").device


def updates(task: Task, options: TrainOptions) -> tuple[int, int]:
    """How many updates an epoch has, and the whole training."""
    epoch = math.ceil(task.steps("train", options.batch_size) / options.accumulate)
    total = max(round(options.epochs * epoch), int(options.epochs > 0))  # some is not none
    return epoch, min(total, options.max_steps) if options.max_steps else total


class Loop:
    """The state of a run between two steps, and what takes it from one to the next."""

    evaluate: Callable[[nn.Module], float] | None
    after_step: Callable[[nn.Module], None] | None
    saved: Saved
    bar: Bar
    autocast: Callable[[], Any]
    interrupt: Interrupt

    def __init__(
        self, model: nn.Module, task: Task, options: TrainOptions, step: Step, seed: int, device: torch.device
    ) -> None:
        self.model, self.task, self.options, self.step = model, task, options, step
        self.seed, self.device = seed, device
        self.at: Callable[[int, int], None] | None = getattr(step, "at", None)
        self.rank, self.world = process()
        self.epoch_steps, self.total = updates(task, options)
        self.history = History()
        self.epoch = self.done = 0  # epochs finished, and steps done in the one at hand
        self.totals = Totals()
        self.epoch_seconds = 0.0
        self.spare: Batch | None = None
        self.batch_norm = SharedBatchNorm() if self.world > 1 else None
        self.channels_last = False

    def begin(self, stack: contextlib.ExitStack, *, title: str, shown: bool) -> None:
        """Set the machine up, and go to where the checkpoint was."""
        options, model = self.options, self.model
        model.to(self.device)
        if options.memory_format == "channels_last":
            self.channels_last = True
            model.to(memory_format=torch.channels_last)
        elif options.memory_format == "auto":
            self.channels_last = channels_last_works(model, move(self.task.example_inputs, self.device))
        model.train()
        self.optimizer = optimizers.optimizer(model, options)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        position = self.saved.restore(model, self.optimizer)
        share_model(model)
        if position is not None:
            self.history = History.from_dict(position["history"])
            self.epoch, self.done = position["epoch"], position["done"]
            self.totals, self.epoch_seconds = Totals(**position["totals"]), position["epoch_seconds"]
        began = None if position is None else position.get("precision")
        self.precision = began or from_leader(precision(options.precision, self.device))
        self.autocast = stack.enter_context(mixed(model, self.precision, self.device))
        self.interrupt = stack.enter_context(Interrupt())
        metric = self.task.metric if self.task.has("validation") else "value"
        self.bar = stack.enter_context(Bar(title, self.total, self.epoch_steps, metric, shown=shown))

    def run(self) -> History:
        """Train to the end, and leave the model with the weights that are to be kept."""
        while self.history.steps < self.total or self.done:
            try:
                self._train_epoch()
            except NotFinite as error:
                raise TrainingError(self._not_finite(error)) from None
            self._finish_epoch()
        if self.options.keep == "best":
            self.saved.load_best(self.model, self.history)
        return self.history

    def _train_epoch(self) -> None:
        if self.done == self.epoch_steps or self.history.steps == self.total:
            return  # all that is left is to evaluate it
        before = self.epoch_seconds
        start = time.perf_counter()
        for group in self._groups():
            stop = self._update(group)
            self.done += 1
            self.history.steps += 1
            self.epoch_seconds = before + time.perf_counter() - start
            if stop:
                self._save()
                raise KeyboardInterrupt
            if self.history.steps == self.total:
                break
            if self.saved.due(self.options.save_every):
                self._save()
        self.totals.settle()

    def _groups(self) -> Iterator[list[Batch]]:
        """The epoch's batches, as many at a time as one update takes, from the position on."""
        options = self.options
        batches = self.task.batches(
            "train",
            options.batch_size,
            epoch=self.epoch,
            seed=self.seed,
            augment=options.augment,
            rank=self.rank,
            world=self.world,
        )
        rest = itertools.islice(batches, self.done * options.accumulate, None)
        while group := list(itertools.islice(rest, options.accumulate)):
            yield group

    def _update(self, group: list[Batch]) -> bool:
        """One optimizer step on one or several batches. Say whether to stop."""
        number = self.history.steps
        self._seed_step(number)
        if self.at is not None:
            self.at(number, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        samples = sum(batch.total for batch in group)
        sums: dict[str, Any] = {"loss": 0.0}
        for batch in group:
            self._backward(batch, samples, sums)
        stop, values = self._together(sums)
        self.totals.add(number + 1, samples, list(sums), values)
        if self.options.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        if number == 0:
            optimizers.require_same_layout(self.model)
        lr = self.options.lr * schedules.factor(number, self.total, self.epoch_steps, self.options)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.step()
        if (number + 1) % optimizers.EVERY == 0:
            optimizers.forget_small(self.optimizer)
        if self.after_step is not None:
            self.after_step(self.model)
        self.bar.step(number + 1, samples, self.totals, lr)
        return stop

    def _backward(self, batch: Batch, samples: int, sums: dict[str, Any]) -> None:
        """Add a batch's share to the gradients and to the sums.

        A process that has no sample of the batch runs a stand-in that counts nowhere, so that it takes part
        in every exchange.
        """
        local = len(batch.ids)
        if local:
            self.spare = batch
        else:
            batch = self._stand_in()
        weight = local / samples
        batch = replace(
            batch,
            inputs=move(batch.inputs, self.device, channels_last=self.channels_last),
            labels=move(batch.labels, self.device),
        )
        if self.batch_norm is not None:
            self.batch_norm.counted = local > 0
        with self.autocast(), self.batch_norm or contextlib.nullcontext():
            result = self.step(self.model, batch)
        loss = check(result)
        (loss * weight).backward()
        for name, value in {"loss": loss, **result.get("terms", {})}.items():
            number = value.detach().double() if isinstance(value, Tensor) else float(value)
            if self.device.type == "cpu":
                number = float(number)
            # a stand-in's value is no number of the run's, whatever it is
            sums[name] = sums.get(name, 0.0) + (number * weight if local else 0.0)

    def _stand_in(self) -> Batch:
        """One sample that was seen before, or else the first of the epoch's, for a process without any."""
        if self.spare is None:
            self.spare = next(iter(self.task.batches("train", 1)))
        first = torch.zeros(1, dtype=torch.long)
        return replace(
            self.spare,
            inputs=select(self.spare.inputs, first),
            labels=select(self.spare.labels, first),
            ids=self.spare.ids[:1],
            counts=False,
        )

    def _together(self, sums: dict[str, Any]) -> tuple[bool, list[float] | Tensor]:
        """Sum gradients and values over the processes; agree on whether to stop."""
        values = list(sums.values())
        if self.world == 1 and self.device.type == "cpu":
            return self.interrupt.requested, values
        vector = torch.stack(
            [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values]
        )
        if self.world == 1:
            return self.interrupt.requested, vector
        wish = vector.new_tensor([float(self.interrupt.requested)])
        both = sum_gradients(self.parameters, torch.cat([vector, wish]))
        return bool(both[-1] > 0), both[:-1].tolist()

    def _seed_step(self, number: int) -> None:
        """Dropout and the like draw from a generator that depends on the seed, the step and the process."""
        digest = hashlib.blake2b(f"{self.seed}/{number}/{self.rank}".encode(), digest_size=8).digest()
        value = int.from_bytes(digest, "big") >> 1
        torch.default_generator.manual_seed(value)
        if self.device.type != "cpu":
            torch.manual_seed(value)

    def _finish_epoch(self) -> None:
        """Evaluate, record, save."""
        share_model(self.model)
        self.bar.pause()
        metric = None
        if self.evaluate is not None:
            self.interrupt.at_once = True
            try:
                self.model.eval()
                with torch.no_grad():
                    metric = from_leader(float(self.evaluate(self.model)))
            except KeyboardInterrupt:
                self._save()
                raise
            finally:
                self.interrupt.at_once = False
            self.model.train()
        means = self.totals.means()
        entry = {
            "epoch": self.epoch + 1,
            "loss": means.pop("loss"),
            "terms": means,
            "metric": metric,
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": self.epoch_seconds,
        }
        samples = self.totals.samples
        best = self.history.add(entry)
        self.epoch, self.done, self.totals, self.epoch_seconds = self.epoch + 1, 0, Totals(), 0.0
        self._save()
        if best and self.options.keep == "best":
            self.saved.best(self.model, self.history)
        self.bar.epoch(entry, self.history, samples)

    def _save(self) -> None:
        self.totals.settle()
        position = {
            "epoch": self.epoch,
            "done": self.done,
            "totals": self.totals.to_dict(),
            "epoch_seconds": self.epoch_seconds,
            "precision": self.precision,
            "history": self.history.to_dict(),
        }
        self.saved.save(self.model, self.optimizer, position)

    def _not_finite(self, error: NotFinite) -> str:
        kept = self.saved.kept()
        return (
            f"the loss is {error.value} at epoch {self.epoch + 1}, step {error.step} of {self.total}; "
            f"lower the learning rate (lr: {self.options.lr:g}), clip the gradients (clip: 1.0), "
            f"or look for NaN in the data; {kept}"
        )


def check(result: Any) -> Tensor:
    """The loss of what a step returned."""
    loss = result.get("loss") if isinstance(result, dict) else None
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TrainingError(
            f"the step returned {type(result).__name__} with loss {getattr(loss, 'shape', loss)}; "
            f"it must return {{'loss': a scalar tensor, 'terms': {{name: value}}}}"
        )
    return loss


def select(value: Any, index: Tensor) -> Any:
    """Samples by index, of a tensor, a tuple or a dict of them."""
    if isinstance(value, dict):
        return {key: select(item, index) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(select(item, index) for item in value)
    return value[index]
