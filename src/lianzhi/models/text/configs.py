"""Configs of Hugging Face classifiers as plain values: what is kept, and what is refused.

A config that lies beside a model may name code to run (``auto_map``), files, kernels to download, or sizes that
fill the memory. Only the keys that the library's own class has are kept, and a saved one is bounded.
"""

from __future__ import annotations

import math
from typing import Any

from lianzhi.errors import ArtifactError, RecipeError, did_you_mean
from lianzhi.models.options import check_plain
from lianzhi.models.text.library import explained, transformers

MAX_DEPTH = 3
MAX_VALUES = 4096
MAX_LAYERS = 1024

# said elsewhere (classes), of no account here, or a way to other files and code
_DROPPED = frozenset(
    {
        *("architectures", "auto_map", "chunk_size_feed_forward", "custom_pipelines", "dtype", "id2label"),
        *(
            "is_encoder_decoder",
            "kernel_config",
            "label2id",
            "name_or_path",
            "num_labels",
            "output_attentions",
        ),
        *("output_hidden_states", "problem_type", "return_dict", "torch_dtype", "transformers_version"),
        *("trust_remote_code", "use_cache"),
    }
)
# what a decoder keeps for a next token, and a classifier has none of
_CACHES = frozenset({"use_cache", "use_mems_eval"})
# of an encoder with a decoder; T5's own class has no such key, and T5 reads it
_START = "decoder_start_token_id"
_REFUSED = ("quantization_config", "backbone", "use_timm_backbone", "backbone_config")


def model_types() -> list[str]:
    """The architectures that the library has a sequence classifier for."""
    library = transformers()
    with explained():
        return sorted(library.models.auto.modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)


def make(values: dict[str, Any], num_classes: int) -> Any:
    """The library's config object for `values`, which name a ``model_type``; unknown keys are left out.

    Raises:
        RecipeError: there is no such architecture, or the values do not fit it.
    """
    kind = values.get("model_type")
    known = model_types()
    if not isinstance(kind, str) or kind not in known:
        shown = did_you_mean(kind, known) if isinstance(kind, str) and len(kind) < 60 else ""
        raise RecipeError(
            f"model 'huggingface': {kind!r:.60} is no architecture with a sequence classifier{shown}"
            if kind is not None
            else "model 'huggingface': the config names no model_type, such as bert"
        )
    for key in _REFUSED:
        if values.get(key) is not None:
            raise RecipeError(
                f"model 'huggingface': the config has '{key}', which is not supported; give a plain float model"
            )
    library = transformers()
    try:
        with explained():
            cls = library.CONFIG_MAPPING[kind]
            kept = {key: value for key, value in values.items() if key in own_keys(cls)}
            config = cls(**kept)
            config.num_labels = num_classes
            for one in (config, config.get_text_config()):
                for key in _CACHES & vars(one).keys():
                    setattr(one, key, False)
            if config.is_encoder_decoder and getattr(config, _START, None) is None:
                setattr(config, _START, config.pad_token_id)  # as T5 was trained
            return config
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"model 'huggingface': the config does not fit '{kind}' ({reason})") from None
    except Exception as error:
        if "Strict" not in type(error).__name__:  # the hub's checked dataclasses
            raise
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"model 'huggingface': the config does not fit '{kind}' ({reason})") from None


def told(changes: dict[str, Any], kind: Any) -> dict[str, Any]:
    """What a user writes of a config, with the architecture's own names (`dim`) for the common ones (`hidden_size`).

    A config that lies beside a model may have keys of other versions; what a user writes is meant to count.

    Raises:
        RecipeError: a key is unknown, or stands under both of its names.
    """
    if kind not in model_types():
        return changes  # `make` says what is wrong
    with explained():
        cls = transformers().CONFIG_MAPPING[kind]
        names, own = dict(cls.attribute_map), own_keys(cls)
    known = own | names.keys()
    for key in changes:
        if key not in known | _DROPPED and key not in ("model_type", *_REFUSED) and not key.startswith("_"):
            raise RecipeError(
                f"model 'huggingface': config: '{kind}' has no key '{key:.60}'{did_you_mean(key, known)}"
            )
        if key in names and names[key] in changes:
            raise RecipeError(
                f"model 'huggingface': config: '{key}' and '{names[key]}' are the same of '{kind}'; leave one of them out"
            )
    return {names.get(key, key): value for key, value in changes.items()}


def own_keys(cls: Any) -> set[str]:
    """The keys of the class's own config that say what the model is."""
    default = cls()
    keys = {*default.to_dict(), *([_START] if default.is_encoder_decoder else [])}
    return {key for key in keys if key not in _DROPPED and not key.startswith("_")} - {"model_type"}


def plain(config: Any) -> dict[str, Any]:
    """A config object as the values that `make` takes, with every default filled in."""
    values = config.to_dict()
    keys = own_keys(type(config))
    return {
        "model_type": config.model_type,
        **{key: _tidy(values[key]) for key in sorted(keys) if key in values},
    }


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _tidy(item) for key, item in value.items() if str(key) not in _DROPPED}
    return [_tidy(item) for item in value] if isinstance(value, (list, tuple)) else value


def check(values: Any) -> None:
    """Raise `ArtifactError` for values that no saved model has. The library is asked for nothing but its names."""
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ArtifactError("'huggingface' has a config that no saved model has")
    if values["model_type"] not in model_types():
        raise ArtifactError(f"'huggingface' has the unknown architecture {values['model_type']!r:.60}")
    known = own_keys(transformers().CONFIG_MAPPING[values["model_type"]]) | {"model_type"}
    strange = [key for key in values if key not in known]
    if strange or any(values.get(key) is not None for key in _REFUSED):
        named = strange[0] if strange else next(key for key in _REFUSED if values.get(key) is not None)
        raise ArtifactError(f"'huggingface' has the config key {named!r:.60}, which no saved model has")
    _check_values("config", values, 0, [MAX_VALUES])


def _check_values(key: str, value: Any, depth: int, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise ArtifactError("'huggingface' has a config of more values than any saved model has")
    if isinstance(value, dict):
        for name, item in value.items():
            if len(str(name)) > 80 or str(name).startswith("_") or name in _DROPPED:
                raise ArtifactError(
                    f"'huggingface' has the config key {name!r:.60}, which no saved model has"
                )
            _check_values(str(name), item, depth + 1, left)
    elif isinstance(value, list):
        for item in value:
            _check_values(key, item, depth + 1, left)
    else:
        check_plain("huggingface", key, value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ArtifactError(
                f"'huggingface' has the config {key!r:.40}: {value}, which no saved model has"
            )
        if type(value) is int and "layers" in key and abs(value) > MAX_LAYERS:
            raise ArtifactError(
                f"'huggingface' asks for {value:,} layers ({key!r:.40}), which no saved model has"
            )
