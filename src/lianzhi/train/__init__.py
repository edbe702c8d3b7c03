"""The one training loop: optimizers, schedules, checkpoints, several processes."""

from lianzhi.processes import barrier, from_leader, process, start_processes
from lianzhi.train.default_step import Step, default_step, task_loss
from lianzhi.train.device import check_device
from lianzhi.train.history import History
from lianzhi.train.loop import fit
from lianzhi.train.options import TrainOptions
from lianzhi.train.validation import move

__all__ = [
    "History",
    "Step",
    "TrainOptions",
    "barrier",
    "check_device",
    "default_step",
    "fit",
    "from_leader",
    "move",
    "process",
    "start_processes",
    "task_loss",
]
