"""What Pillow raises for a damaged image, as one error that names the image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from lianzhi.errors import DataError

DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, ArithmeticError, LookupError, TypeError)


@contextlib.contextmanager
def readable(where: Callable[[int], str], row: int) -> Iterator[None]:
    """Raise `DataError` naming the row's image if it turns out to be damaged, or a decompression bomb."""
    from PIL import Image

    try:
        yield
    except (*DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{where(row)}: the image cannot be read ({error}); replace it or take it out"
        ) from None
