"""TensorRT's log: errors are kept for our messages, and nothing is printed."""

from __future__ import annotations

from typing import Any


def logger(trt: Any) -> Any:
    """A logger of this library's own class, whose `lines` are the errors so far."""

    class Kept(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.lines.append(" ".join(msg.split()))

    return Kept()
