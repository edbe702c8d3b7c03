"""Mean squared error of logits: Distilled BiLSTM, Tang et al. 2019 (1903.12136); Ba and Caruana 2014 (1312.6184).

    loss = (s - t)², the mean over classes and samples

The papers write the squared distance, a sum over classes: this times the number of classes. The mean is what
"MSE" means in most code; a weight absorbs the difference.
"""

from __future__ import annotations

from torch import Tensor

from lianzhi.distill.losses.catalog import registry
from lianzhi.distill.losses.parts import mean_or_zero, require_same_shape, squared_difference, valid


@registry.register(
    "logit_mse",
    "mean squared error of the logits",
    paper="https://arxiv.org/abs/1903.12136",
)
def logit_mse(student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Make the student's logits those of the teacher.

    >>> import torch
    >>> logit_mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
    2.0

    Logits are (batch, classes) or (batch, tokens, classes); the mask has that shape without its last part, and where
    it is false (padding) nothing counts. The mean is over the samples (tokens) that count and over classes; of no
    sample it is 0. No gradient goes to the teacher.

    Raises:
        DataError: logits or mask have shapes that do not go together.
    """
    require_same_shape(student_logits, teacher_logits)
    student, teacher, _ = valid(student_logits, teacher_logits.detach(), None, mask)
    return mean_or_zero(squared_difference(student, teacher))
