"""Models that take tokens, one file a family."""

import importlib

FAMILIES = ("bilstm", "huggingface")


def load() -> None:
    """Import every family, which puts its models into the registry."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
