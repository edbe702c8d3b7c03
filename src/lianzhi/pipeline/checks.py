"""What cannot work is found out before anything is written: data, target, shapes, and each step's options."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lianzhi import artifact, deploy, graph, quantize, train
from lianzhi.codebook.bits import bits_by_name
from lianzhi.codebook.masks import names_of
from lianzhi.codebook.sharing import homes_of, is_shared
from lianzhi.config import Config
from lianzhi.errors import (
    ArtifactError,
    DataError,
    GraphError,
    LianzhiError,
    RecipeError,
    TargetError,
    did_you_mean,
)
from lianzhi.pipeline import weights
from lianzhi.pipeline.batches import evaluator, require_calibration, validation_metric
from lianzhi.pipeline.capturing import captured
from lianzhi.pipeline.choose import runtimes
from lianzhi.pipeline.distilling import Training, check_distill, check_refine
from lianzhi.pipeline.given import check_given, check_outputs
from lianzhi.pipeline.packing import to_round
from lianzhi.pipeline.pruning import latency_target, make_plan
from lianzhi.pipeline.quantizing import quantization_targets, reads_samples, settings
from lianzhi.pipeline.rows import batch_of
from lianzhi.pipeline.sharing import layer_by_layer
from lianzhi.pipeline.state import ORIGINAL, Run, State, reading
from lianzhi.pipeline.teachers import check_keeping, check_teacher
from lianzhi.pipeline.texts import check_texts
from lianzhi.pipeline.training import penalty_of
from lianzhi.pipeline.vocabulary import check_vocabulary
from lianzhi.precisions import FLOAT_PRECISIONS, PRECISIONS
from lianzhi.prune import depth, latency, scoring
from lianzhi.recipe import Distill, Pack, Prune, Quantize, ReduceVocabulary, ShareWeights, Sparsify, kind_of
from lianzhi.tasks import Task


def check(run: Run, model: nn.Module) -> list[dict[str, Training]]:
    """Raise a `LianzhiError` for a run that cannot work. Changes nothing and writes nothing.

    Returns of each step how the stages of its distillation train, where it has one.
    """
    train.check_device(run.recipe.device)
    runtimes(run)
    _check_precision(run)
    _check_labels(run.task)
    check_given(run)
    graph.check_values(model)
    if is_shared(model):
        raise GraphError("the weights of the model are shared; bake it first (lianzhi.codebook.sharing.bake)")
    _check_shapes(run, model)
    artifact.check_savable(model, run.task.example_inputs)
    _check_batch(run, model)
    check_texts(run.task, model, "the model")
    task, steps = run.task, run.recipe.steps
    if not task.has("train") and any(_trains(step) for step in steps):
        raise DataError(f"task '{task.name}' has no training split, and the recipe has steps that train")
    state = State(model=model, teacher=model)  # as the steps before leave it: students, tokens
    trainings: list[dict[str, Training]] = [{} for _ in steps]
    for position, step in enumerate(steps):
        if type(step) in CHECKS:
            try:
                _check_teaches(run, position, step)
                trainings[position] = CHECKS[type(step)](reading(run, state), state, step) or {}
            except LianzhiError as error:
                raise type(error)(f"steps.{position} ({kind_of(step)}): {error}") from None
    if run.recipe.target != "auto":
        target: deploy.Runtime = deploy.registry.get(run.recipe.target).build
        target.check_module(state.model, reading(run, state).task.example_inputs)
    return trainings


def _check_precision(run: Run) -> None:
    """Refuse a precision that no candidate will have."""
    wanted, steps = run.recipe.precision, run.recipe.steps
    if wanted is not None and wanted not in PRECISIONS:
        raise RecipeError(f"precision '{wanted}' is not known{did_you_mean(wanted, PRECISIONS)}")
    held = ["f32"]
    for step in steps:
        if isinstance(step, Quantize):
            held += quantize.possible_precisions(step.weights, step.activations, step.layers)
    if wanted not in (None, *FLOAT_PRECISIONS, *held):
        gives = f"the steps give {', '.join(dict.fromkeys(held[1:]))}" if held[1:] else "no step quantizes"
        raise RecipeError(
            f"precision: {wanted}, and {gives}; add '- quantize: {{}}' or other options of it, or drop 'precision'"
        )
    offered = {
        name: [found for item in held for found in deploy.registry.get(name).build.offers(item)]
        for name in runtimes(run) or ["pytorch"]
    }
    if wanted is not None and not any(wanted in found for found in offered.values()):
        shown = "; ".join(f"{name}: {', '.join(dict.fromkeys(found))}" for name, found in offered.items())
        raise TargetError(
            f"precision '{wanted}' is not offered on this machine by target '{run.recipe.target}' ({shown}); "
            f"choose another, or drop 'precision' to let it be chosen"
        )


def _check_labels(task: Task) -> None:
    """The artifact keeps the names of the classes."""
    try:
        artifact.checked_labels(task.labels or ())
    except ArtifactError as error:
        raise DataError(f"task '{task.name}': {error}") from None


def _check_shapes(run: Run, model: nn.Module) -> None:
    outputs = captured(run, run.task, model).output_shape
    classes = run.task.num_classes
    if run.task.scores and outputs is not None and tuple(outputs[1:]) != (1,):
        raise DataError(
            f"the model gives outputs of shape {tuple(outputs)}, and the task '{run.task.name}' asks for one score a "
            f"sample; {_remedy(run, 1)}"
        )
    if classes is not None and outputs is not None and len(outputs) == 2 and outputs[1] < classes:
        raise DataError(
            f"the model gives {outputs[1]} outputs, and the task '{run.task.name}' has {classes} classes; "
            f"{_remedy(run, classes)}"
        )
    check_outputs(run, outputs)


def _remedy(run: Run, classes: int) -> str:
    """What gives a model the task's classes."""
    spec = run.recipe.model
    if spec is not None and spec.artifact is not None:
        return "give it a last layer for them (head: new), and train it"
    return f"make the model with num_classes={classes}"


def _check_teaches(run: Run, position: int, step: Config) -> None:
    """A new last layer has nothing to teach."""
    spec = run.recipe.model
    inner = step.refine if isinstance(step, Prune) else step
    taught = isinstance(inner, Distill) or (
        isinstance(inner, ShareWeights) and inner.distill and inner.trainings
    )
    if spec is None or spec.head is None or not taught or getattr(inner, "teacher", None) != ORIGINAL:
        return
    if not any(isinstance(before, train.TrainOptions) for before in run.recipe.steps[:position]):
        raise RecipeError(
            "the teacher is the model as it was given, whose last layer is new and knows nothing; put a train step before it, "
            "or name another teacher"
        )


def _check_batch(run: Run, model: nn.Module) -> None:
    """Evaluation and timing call the model with many samples at once."""
    if any(tensor.device.type != "cpu" for tensor in model.state_dict().values()):
        return
    session = deploy.load(model, runtime="pytorch")
    try:
        outputs = pytree.tree_leaves(session(batch_of(run.task.example_inputs, 2)))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(
            f"the model takes one sample at a time ({reason}); let its forward keep the first dimension, of any size"
        ) from None
    first = next((leaf for leaf in outputs if isinstance(leaf, Tensor) and leaf.dim()), None)
    if first is not None and len(first) != 2:
        raise GraphError(
            f"two samples give an output of shape {tuple(first.shape)}; let the model's forward keep the first dimension"
        )


def _trains(step: Config) -> bool:
    if isinstance(step, Quantize):
        return step.training is not None
    return isinstance(step, train.TrainOptions) or (isinstance(step, Prune) and step.refine is not None)


def _check_prune(run: Run, state: State, step: Prune) -> dict[str, Training]:
    """Try names, options and budget on the model as it was given, without reading data or timing anything.

    A criterion that reads data is resolved, and l1 takes its place in the trial plan: what can be met does not
    depend on the scores. So does an even ratio for sensitivities, and any ratio for a latency.
    """
    if step.removes_weights:
        return weights.check_prune(run, state, step)
    changes: dict[str, Any] = {}
    if step.removes_layers:
        depth.check_criterion(step.criterion)
        reads = step.criterion == "influence"
    else:
        reads = scoring.resolve(step.criterion, step.criterion_options)[1] is not None
    if reads:
        require_calibration(run.task)
        changes |= {"criterion": "l1", "criterion_options": {}}
    if step.latency is not None:
        latency.check(latency_target(run, step), step.batch)
        changes |= {"latency": None, "ratio": 0.5}
    if step.scope == "sensitivity":
        evaluator(run.task)
        changes |= {"scope": "layer", "max_layer_ratio": min(step.max_layer_ratio, step.ratios[-1])}
    plan = make_plan(run, state.model, step, **changes)
    later = _after(run, step)
    if step.removes_layers and any(map(_compares_layers, [step, *later])):
        raise RecipeError(
            "it removes layers, and 'layerwise' compares layers by their names, which then are others'; take the method kd"
        )
    trainings: dict[str, Training] = {}
    if isinstance(step.refine, Distill):
        pruned = replace(state, model=plan.apply()) if _compares_layers(step) else state
        trainings = check_refine(run, pruned, step.refine)
    taught = any(isinstance(one, Distill) or _compares_layers(one) for one in later)
    if taught and not step.removes_layers:  # layers that are left have names that only the scores tell
        state.model = plan.apply()
    return trainings


def _compares_layers(step: Config) -> bool:
    """Whether a step, or what a prune step refines with, compares the model's layers with those of the same names."""
    if isinstance(step, ShareWeights):
        return step.layerwise > 0
    inner = step.refine if isinstance(step, Prune) else step
    return isinstance(inner, Distill) and inner.method == "layerwise"


def _check_sparsify(run: Run, state: State, step: Sparsify) -> None:
    penalty_of(step, state.model, run.task)


def _check_distill(run: Run, state: State, step: Distill) -> dict[str, Training]:
    check_teacher(run, state, step.teacher)
    return check_distill(run, state, step)


def _check_quantize(run: Run, state: State, step: Quantize) -> None:
    if not deploy.takes_onnx(run.recipe.target):
        what = "PyTorch" if run.recipe.target == "pytorch" else f"what is written for {run.recipe.target}"
        raise RecipeError(
            f"{what} computes in float32, where int8 is neither smaller nor faster; leave the step out, or set target: "
            f"auto, onnxruntime or openvino"
        )
    targets = quantization_targets(run)
    for target in targets:
        quantize.check_options(target=target, **settings(step))
    if step.weights == "float32":
        raise RecipeError(
            "weights 'float32' is the float model, which is a candidate of every run; leave the step out, or set weights "
            "to int8, int4, float16 or bfloat16"
        )
    if reads_samples(run.task, step):
        require_calibration(run.task)
    if not all(isinstance(later, Pack) for later in _after(run, step)):
        if step.training is not None:
            raise RecipeError(
                "the steps after it would change the float weights, and what 'method: qat' trained would be lost; make it "
                "the last step"
            )
        if step.where_faster:
            raise RecipeError(
                "the steps after it would change what 'where_faster' timed; make it the last step"
            )
    if step.max_drop is not None:
        validation_metric(run.task)
    if step.where_faster and not all(deploy.runs_here(target) for target in targets):
        raise RecipeError(
            f"where_faster: target '{run.recipe.target}' does not run on this machine, so nothing can be timed; leave it out"
        )
    if step.calibration_table is not None:
        _check_table(run, state.model, step, targets)
    if not any(isinstance(before, Prune) and before.removes_layers for before in run.recipe.steps):
        quantize.check_patterns(state.model, run.task.example_inputs, ignore=step.ignore, layers=step.layers)


def _check_table(run: Run, model: nn.Module, step: Quantize, targets: list[str]) -> None:
    """A table is of one model, as it was given, and of one target."""
    assert step.calibration_table is not None
    if len(run.recipe.steps) > 1:
        raise RecipeError(
            "calibration_table: it is of one model, and other steps change the weights; let 'quantize' be the only step"
        )
    if run.recipe.target == "auto":
        raise RecipeError(
            "calibration_table: it is of one target; set 'target' to the one that the table was made for"
        )
    if quantize.is_tensorrt_cache(step.calibration_table):
        quantize.check_cache(step.calibration_table, target=run.recipe.target, techniques=step.techniques)
        return
    for target in targets:
        quantize.check_table(step.calibration_table, model, target=target, techniques=step.techniques)


def _after(run: Run, step: Config) -> list[Config]:
    """The steps after one."""
    steps = list(run.recipe.steps)
    return steps[next(index for index, one in enumerate(steps) if one is step) + 1 :]


def _check_share(run: Run, state: State, step: ShareWeights) -> None:
    for later in _after(run, step):
        if not isinstance(later, (Pack, Quantize)) or (isinstance(later, Quantize) and later.training):
            raise RecipeError(
                f"'{kind_of(later)}' after it would change the weights, and they would share no values any more; only "
                f"'pack' and 'quantize' (ptq) go behind it"
            )
    found = weights.compressible(state.model, step.ignore)
    option, asked = ("bits", step.bits) if step.rate is None else ("rate", step.rate)
    homes_of(state.model, bits_by_name(found, asked, also=names_of(state.model), option=option))
    if step.max_drop is not None:
        validation_metric(run.task)
    if step.distill and step.trainings:
        check_teacher(run, state, step.teacher)
        check_keeping(run, state, step.teacher)
        if step.layerwise:
            layer_by_layer(run, replace(state, model=copy.deepcopy(state.model)), step)


def _check_pack(run: Run, state: State, step: Pack) -> None:
    if _after(run, step):
        raise RecipeError("the packed file is of the model that ships; make 'pack' the last step")
    if step.other != "float32" and any(isinstance(one, Quantize) for one in run.recipe.steps):
        raise RecipeError(f"other: {step.other} would round the scales of int8 as well; leave it out")
    to_round(state.model, step)


CHECKS: dict[type[Config], Callable[[Run, State, Any], dict[str, Training] | None]] = {
    Prune: _check_prune,
    Sparsify: _check_sparsify,
    Distill: _check_distill,
    Quantize: _check_quantize,
    ShareWeights: _check_share,
    Pack: _check_pack,
    ReduceVocabulary: check_vocabulary,
}
