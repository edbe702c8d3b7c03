"""OneFlow: its checkpoints read and written, without OneFlow."""

from lianzhi.deploy.oneflow.writing import write
from lianzhi.models.checkpoints import read_oneflow as read

__all__ = ["read", "write"]
