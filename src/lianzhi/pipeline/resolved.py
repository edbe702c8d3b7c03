"""The recipe that is saved beside a result: every default and every measured decision filled in, so that it runs again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lianzhi import __version__, models, tasks
from lianzhi.config import defaults
from lianzhi.pipeline.distilling import filled
from lianzhi.pipeline.opening import options_of_task
from lianzhi.pipeline.state import Run
from lianzhi.recipe import Distill, ModelSpec, Prune, Recipe, TaskSpec
from lianzhi.tasks import Task


def resolved(
    run: Run, row: Mapping[str, Any], decision: dict[str, Any] | None, environment: dict[str, Any]
) -> dict[str, Any]:
    """The recipe with every default, the measured decisions (those in the last row too) and the versions filled in."""
    values = with_sources(plain(run.recipe, row, decision), run.task)
    if decision:
        values["target"], values["precision"] = decision["runtime"], decision["precision"]
    values["versions"] = {"lianzhi": __version__} | {
        name: str(environment[name]) for name in ("torch", "onnxruntime", "openvino") if environment.get(name)
    }
    return values


def plain(recipe: Recipe, row: Mapping[str, Any], decision: dict[str, Any] | None) -> dict[str, Any]:
    """The recipe as plain values: every method's defaults, and the layers that were faster in float for `where_faster`."""
    values = recipe.to_dict()
    for step, options in zip(recipe.steps, values["steps"], strict=True):
        if isinstance(step, Distill):
            options["distill"] = filled(step)
        elif isinstance(step, Prune) and isinstance(step.refine, Distill):
            options["prune"]["refine"] = {"distill": filled(step.refine)}
    found = row["details"].get("quantization", {}).get(decision["runtime"] if decision else None, {})
    for step in values["steps"]:
        options = step.get("quantize", {})
        if options.get("where_faster") and "speed" in found:
            options |= {
                "where_faster": False,
                "ignore": [*options["ignore"], *found["speed"]["layers"]],
            }
    return values


def recipe_yaml(recipe: dict[str, Any]) -> str:
    """The resolved recipe as YAML that runs again."""
    import yaml

    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def with_sources(recipe: dict[str, Any], task: Task) -> dict[str, Any]:
    """A recipe's plain values with the options of task and model that it does not give.

    What the data decides stays open, and so does what is something else where it is not given.
    """
    values = dict(recipe)
    if values.get("task") is not None:
        spec = TaskSpec(**values["task"])
        options = tasks.registry.get(spec.name).options(**spec.options)
        values["task"] = _with(values["task"], options.to_dict(), options.OPEN)
    if values.get("model") is not None:
        name, file = (getattr(ModelSpec(**values["model"]), key) for key in ("name", "file"))
        if name is not None and file is None:
            known = defaults(models.registry.get(name).config)
            values["model"] = _with(values["model"], known, {"num_classes", *options_of_task(name, task)})
    return values


def _with(given: dict[str, Any], known: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
    """What was given, and then what was not and has a value, without what is left open."""
    rest = {key: value for key, value in known.items() if key not in left and value is not None}
    return given | {key: value for key, value in rest.items() if key not in given}
