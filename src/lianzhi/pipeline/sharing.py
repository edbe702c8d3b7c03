"""The step `share_weights`: codebooks by k-means, or of a rate, training of weights that move between values, then of the values.

The bits that a search found are a file in the step's folder: a run that goes on does not search again. The model is an
ordinary one again when the step is done; its weights take the codebooks' values to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lianzhi import distill, files, train
from lianzhi.codebook.bits import bits_by_name, search_bits
from lianzhi.codebook.masks import names_of, weights_of
from lianzhi.codebook.moving import follow
from lianzhi.codebook.rated import BITS
from lianzhi.codebook.sharing import bake, share
from lianzhi.pipeline.batches import on_validation, validation_metric
from lianzhi.pipeline.stages import distributions, stage
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.teachers import logits_of_teacher, reads_otherwise, teacher_of
from lianzhi.pipeline.training import AfterStep, masks_of
from lianzhi.pipeline.weights import compressible
from lianzhi.pipeline.working import working
from lianzhi.recipe import ShareWeights

Details = dict[str, Any]


def run_share(run: Run, state: State, step: ShareWeights, folder: Path, *, resume: bool) -> Details:
    """Share the weights, train the shared values, and keep them if that helped."""
    dense = {name: weight.detach().clone() for name, weight in compressible(state.model, step.ignore).items()}
    how: Details = {"init": step.init, "groups": step.groups, "seed": run.recipe.seed}
    with working(run, "share weights: k-means"):
        asked = _asked(run, state, step, folder, resume=resume)
        share(state.model, **asked, **how, moving=step.moving is not None)
    (names,) = asked.values()
    history: Details = {}
    if step.moving is not None:
        moved = _fit(run, state, step, step.moving, folder / "moving", resume=resume, after_step=follow)
        bake(state.model)
        history["moving"] = moved.to_dict()
        few = asked.get("bits", dict.fromkeys(names, BITS))  # each value that is left is its own centroid
        share(state.model, few, **how)
    if step.epochs:
        history |= _train(run, state, step, folder, resume=resume)
    bake(state.model)
    shown = distributions({name: dense[name] for name in names}, _weights(state, names))
    return {**asked, **history, **stage(run, state.model, folder), "distributions": shown}


def _weights(state: State, names: Iterable[str]) -> dict[str, Tensor]:
    found = weights_of(state.model)
    return {name: found[name] for name in names}


def _asked(run: Run, state: State, step: ShareWeights, folder: Path, *, resume: bool) -> Details:
    """The rate of each weight, or its bits."""
    if step.rate is None:
        return {"bits": _bits(run, state, step, folder, resume=resume)}
    weights = compressible(state.model, step.ignore)
    return {"rate": bits_by_name(weights, step.rate, also=names_of(state.model), option="rate")}


def _bits(run: Run, state: State, step: ShareWeights, folder: Path, *, resume: bool) -> dict[str, int]:
    """The bits of each weight: as asked, or searched, once."""
    weights = compressible(state.model, step.ignore)
    if step.max_drop is None or not isinstance(step.bits, int):
        return bits_by_name(weights, step.bits, also=names_of(state.model))
    file, found = folder / "bits.json", None
    if run.leads and resume and file.is_file():
        found = files.read_json(file)
    elif run.leads:
        found = search_bits(
            state.model,
            weights,
            validation_metric(run.task),
            step.max_drop,
            most=step.bits,
            init=step.init,
            groups=step.groups,
            seed=run.recipe.seed,
        )
        files.write_json(file, found)
    bits: dict[str, int] = train.from_leader(found)
    return bits


def _train(run: Run, state: State, step: ShareWeights, folder: Path, *, resume: bool) -> Details:
    """Train the shared values. What k-means gave is kept where no epoch was better."""
    before = copy.deepcopy(state.model)
    history = _fit(run, state, step, step, folder / "train", resume=resume)
    record = history.to_dict()
    if step.keep != "best" or history.best_value is None:
        return {"history": record}
    record["before"] = train.from_leader(on_validation(run.task)(before) if run.leads else None)
    if history.best_value < record["before"]:
        state.note(
            f"training of shared weights did not help: {record['before']:.4f} on validation before, "
            f"{history.best_value:.4f} at best in training; the values before are kept (a smaller lr may do better)"
        )
        state.model.load_state_dict(before.state_dict())
    return {"history": record}


def _fit(
    run: Run,
    state: State,
    step: ShareWeights,
    options: train.TrainOptions,
    folder: Path,
    *,
    resume: bool,
    after_step: AfterStep | None = None,
) -> train.History:
    """Train what is shared; the zeros of weights that are not shared hold, too."""
    masks = masks_of(state, state.model)

    def after(model: torch.nn.Module) -> None:
        if after_step is not None:
            after_step(model)
        if masks is not None:
            masks.apply_(model)

    history = train.fit(
        state.model,
        run.task,
        options,
        step=_step(run, state, step),
        seed=run.recipe.seed,
        directory=folder,
        resume=resume,
        progress=run.progress and run.leads,
        title="share_weights" if options is step else "share_weights (moving)",
        device=run.recipe.device,
        after_step=after,
    )
    if masks is not None:
        masks.release()
    return history


def _step(run: Run, state: State, step: ShareWeights) -> train.Step:
    """The task's loss, and by default a teacher's outputs, and what its layers give if they are to be learned."""
    if not step.distill:
        return train.default_step(run.task, step)
    if step.layerwise:
        return layer_by_layer(run, state, step)
    return distill.methods.kd.make_step(
        logits_of_teacher(run, state, step.teacher, step),
        temperature=step.temperature,
        alpha=step.alpha,
        loss=train.task_loss(run.task, step),
    )


def layer_by_layer(run: Run, state: State, step: ShareWeights) -> train.Step:
    """The step of the method `layerwise`. Raises what its `build` does, where the teacher has not the model's layers."""
    setting = distill.methods.Setting(
        teacher_of(state, step.teacher),
        state.model,
        run.task,
        step,
        source=logits_of_teacher(run, state, step.teacher, step),
        reads=reads_otherwise(run.task, state, step.teacher),
    )
    method = distill.methods.layerwise
    options = method.LayerwiseOptions(weight=step.layerwise, alpha=step.alpha, temperature=step.temperature)
    return method.build(setting, options).stages[0].step
