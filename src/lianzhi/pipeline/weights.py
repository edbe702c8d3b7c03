"""The step `prune: {granularity: weight}`, or ``2:4``: the smallest weights, or those that cost least, become zero, at once, in
rounds, or while the model trains.

From then on the zeros hold in every step that trains (`State.sparse`). What a killed run must not decide anew, the shares by
sensitivity, is a file in the step's folder; all else follows from the weights and from training's own checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lianzhi import files, prune, train
from lianzhi.codebook.allocation import by_sensitivity, masks_for
from lianzhi.codebook.damage import require_trained
from lianzhi.codebook.gradual import Gradual
from lianzhi.codebook.masks import (
    Masks,
    each_mask,
    names_of,
    require_dense_gradients,
    threshold_mask,
    two_of_four_mask,
    weights_of,
)
from lianzhi.codebook.plain import require_plain
from lianzhi.errors import RecipeError
from lianzhi.pipeline.batches import evaluator, training_inputs
from lianzhi.pipeline.distilling import Training, all_updates, check_refine, make_lessons, run_distill
from lianzhi.pipeline.stages import stage
from lianzhi.pipeline.state import Run, State
from lianzhi.pipeline.training import run_train
from lianzhi.pipeline.working import working
from lianzhi.prune.ignoring import Ignored
from lianzhi.recipe import Distill, Prune, Train
from lianzhi.train.loop import updates

Details = dict[str, Any]
Scope = str | Mapping[str, float]
LAST = {"keep": "last"}  # of a gradual step's refine: no epoch but the last has all its zeros


def compressible(model: nn.Module, ignore: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """The weights that a step prunes or shares. A tied one is left out by any of its names.

    Raises `RecipeError` for a pattern that fits nothing, and where nothing is left.
    """
    ignored, names = Ignored(model, ignore), names_of(model)
    found = {name: weight for name, weight in weights_of(model).items() if not ignored.touches(names[name])}
    if not found:
        raise RecipeError(
            "the model has no weights of two or more dimensions to prune or to share, beside those of 'ignore'"
        )
    return found


def require_prunable(model: nn.Module, step: Prune) -> None:
    """Raises `GraphError` for weights that no mask fits: computed of other parameters, trained by sparse gradients or, where these are read,
    by none.

    Raises what `compressible` does, too.
    """
    weights = compressible(model, step.ignore)
    if step.criterion == "hessian":
        require_trained(model, weights)
    require_dense_gradients(model, weights)
    found = {id(weight) for weight in weights.values()}
    for name, module in model.named_modules():
        if any(id(parameter) in found for parameter in module.parameters(recurse=False)):
            require_plain(name, module, step="prune", leave="leave it out (by 'ignore')")


def require_fours(model: nn.Module, step: Prune) -> list[str]:
    """Of granularity 2:4: the weights that stay whole. Raises `RecipeError` where all would."""
    if not step.two_of_four:
        return []
    found = compressible(model, step.ignore)
    whole = [name for name, weight in found.items() if weight.shape[1] % 4]
    if len(whole) == len(found):
        raise RecipeError("granularity '2:4': no weights have inputs that are a multiple of four")
    return whole


def check_prune(run: Run, state: State, step: Prune) -> dict[str, Training]:
    """Refuse what cannot work, and return how each stage of a `refine` with a teacher trains. Nothing is trained or written."""
    require_prunable(state.model, step)
    require_fours(state.model, step)
    if step.scope == "sensitivity" and step.ratio is not None:
        evaluator(run.task)
    if not isinstance(step.refine, Distill):
        return {}
    if step.gradual is None:
        return check_refine(run, state, step.refine)
    trainings = check_refine(run, state, step.refine.model_copy(update=LAST))
    for name, training in trainings.items():
        if training.options.keep == "best":
            raise RecipeError(
                f"refine: with 'gradual' the last epoch counts, and stage '{name}' keeps the best one; leave its 'keep' out"
            )
    if not any(training.options.epochs for training in trainings.values()):
        raise RecipeError("refine: 'gradual' needs a stage that trains, and the 'epochs' of all are 0")
    return trainings


def run_prune(run: Run, state: State, step: Prune, folder: Path, *, resume: bool) -> Details:
    """Remove weights, re-estimate BatchNorm and refine if asked."""
    if whole := require_fours(state.model, step):
        state.note(f"2:4: {', '.join(whole)} stay whole: their inputs are no multiple of four")
    weights = compressible(state.model, step.ignore)
    with working(run, "prune: which weights"):
        scope = _scope(run, state.model, step, weights, folder, resume=resume)
    if step.gradual is not None:
        details = _gradually(run, state, step, scope, folder, resume=resume)
        return {**details, **kept(weights), **stage(run, state.model, folder)}
    rounds: list[Details] = []
    for index, share in enumerate(prune.shares(step.iterations, step.schedule)):
        Masks(state.model, _masks(step, weights, scope, share)).release()
        state.sparse |= set(weights)
        if step.reestimate:
            prune.reestimate(state.model, training_inputs(run, step.reestimate))
        rounds.append({"kept": kept(weights)["kept"]})
        if step.refine is not None and index < step.iterations - 1:
            inside = files.make_folder(folder / f"round-{index}")
            rounds[-1] |= _refine(run, state, step, inside, resume=resume)
    more = {"rounds": rounds} if step.iterations > 1 else {}
    return {**kept(weights), **more, **stage(run, state.model, folder)}


def kept(weights: Mapping[str, Tensor]) -> Details:
    """The share of weights that is not zero."""
    total = sum(weight.numel() for weight in weights.values())
    return {"kept": sum(int((weight != 0).sum()) for weight in weights.values()) / max(1, total)}


def _masks(step: Prune, weights: Mapping[str, Tensor], scope: Scope, share: float) -> dict[str, Tensor]:
    quality = step.quality
    if quality is not None:
        return each_mask(weights, lambda _, weight: threshold_mask(weight, quality))
    if step.two_of_four:
        return each_mask(weights, lambda _, weight: two_of_four_mask(weight))
    assert step.ratio is not None
    return masks_for(weights, step.ratio, scope, share=share)


def _scope(
    run: Run,
    model: nn.Module,
    step: Prune,
    weights: Mapping[str, nn.Parameter],
    folder: Path,
    *,
    resume: bool,
) -> Scope:
    """How the ratio is spread over the layers; by sensitivity it is measured once, and kept on file."""
    if step.scope != "sensitivity" or step.ratio is None:
        return step.scope
    file, found = folder / "shares.json", None
    if run.leads and resume and file.is_file():
        found = files.read_json(file)
    elif run.leads:
        points = sorted({*step.ratios, step.ratio, 1 - (1 - step.ratio) / 4})
        found = by_sensitivity(model, weights, step.ratio, evaluator(run.task), ratios=points)
        files.write_json(file, found)
    shares: dict[str, float] = train.from_leader(found)
    return shares


def _refine(run: Run, state: State, step: Prune, folder: Path, *, resume: bool) -> Details:
    refine = run_distill if isinstance(step.refine, Distill) else run_train
    return refine(run, state, step.refine, folder, resume=resume)  # type: ignore[arg-type]


def _gradually(run: Run, state: State, step: Prune, scope: Scope, folder: Path, *, resume: bool) -> Details:
    """Let the share rise while `refine` trains."""
    assert step.gradual is not None
    train_: Callable[..., Details]
    if isinstance(step.refine, Distill):
        taught = step.refine.model_copy(update=LAST)
        made = make_lessons(run, state, taught, progress=True)
        total, train_ = all_updates(taught, *made), partial(run_distill, run, state, taught, made=made)
    else:
        assert isinstance(step.refine, Train)
        alone = step.refine.model_copy(update=LAST)
        total, train_ = updates(run.task, alone)[1], partial(run_train, run, state, alone)
    names = list(compressible(state.model, step.ignore))
    gradual = Gradual(
        state.model,
        names,
        lambda weights, share: _masks(step, weights, scope, share),
        updates=max(1, round(step.gradual * total)),
        every=step.every,
        schedule=step.schedule,
        feedback=step.feedback,
        criterion=step.criterion,
    )
    details = train_(folder, resume=resume, after_step=gradual.after_step)
    gradual.finish(state.model)
    state.sparse |= set(names)
    if step.reestimate:
        prune.reestimate(state.model, training_inputs(run, step.reestimate))
    return details
