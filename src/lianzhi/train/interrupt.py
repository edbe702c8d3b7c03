"""Ctrl-C asks the loop to stop at the next step, where it can save; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While entered in the main thread, notes SIGINT instead of raising.

    With `at_once` set (nothing is half done), it raises `KeyboardInterrupt` as usual.
    """

    def __init__(self) -> None:
        self.requested = False
        self.at_once = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        ):
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.at_once or self.requested:
            raise KeyboardInterrupt
        self.requested = True
