"""What augmentation gives: texts, and which text each was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmented:
    """Texts, each with the row of the text that it was made from; the given texts are among them.

    `notes` are for the report.
    """

    texts: list[str]
    pairs: list[str] | None
    origins: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)
