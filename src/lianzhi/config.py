"""Configs: frozen, validated when made, unknown keys refused with a suggestion.

Every step, criterion, method, model and task takes its options through a subclass of `Config`, so that
the Python call, the YAML recipe and the saved JSON are the same thing.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lianzhi.errors import RecipeError, did_you_mean


class Config(BaseModel):
    """A frozen set of options.

    >>> class Blur(Config):
    ...     radius: int = 2
    >>> Blur(radius=3).radius
    3
    >>> Blur(radios=3)
    Traceback (most recent call last):
        ...
    lianzhi.errors.RecipeError: Blur: unknown option 'radios'; did you mean 'radius'?
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    OPEN: ClassVar[frozenset[str]] = frozenset()  # options that mean something else where they are not given

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise RecipeError(explain(type(self), error)) from None

    @classmethod
    def keys(cls) -> list[str]:
        """The names of all options."""
        return list(cls.model_fields)

    def to_dict(self) -> dict[str, Any]:
        """Return every option, defaults filled in, as JSON-ready values."""
        return self.model_dump(mode="json")


def defaults(config: type[Config] | None) -> dict[str, Any]:
    """The options of a config class with their defaults; null where there is none and the option has to be given.

    >>> class Blur(Config):
    ...     radius: int
    ...     passes: int = 1
    >>> defaults(Blur), defaults(None)
    ({'radius': None, 'passes': 1}, {})
    """
    if config is None:
        return {}
    required = {name for name, field in config.model_fields.items() if field.is_required()}
    if not required:
        return config().to_dict()
    known = {
        name: field.get_default(call_default_factory=True)
        for name, field in config.model_fields.items()
        if name not in required
    }
    dumped = config.model_construct(**known).model_dump(mode="json", exclude=required, warnings=False)
    return {name: dumped.get(name) for name in config.model_fields}


def explain(cls: type[Config], error: ValidationError) -> str:
    """Turn pydantic's report into one sentence a mistake: what, where, the fix."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown option '{where}'{did_you_mean(where.split('.')[-1], cls.keys())}")
        elif item["type"] == "missing":
            lines.append(f"option '{where}' is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if item["type"] == "value_error" else f" (got {item.get('input')!r})"
            lines.append(f"option '{where}': {message}{given}" if where else message)
    return f"{cls.__name__}: " + "; ".join(lines)
