"""The work behind each command, callable from Python as well: paths and names in, results out."""

from lianzhi.jobs.dry_run import dry_run
from lianzhi.jobs.evaluate import checked_device, evaluate
from lianzhi.jobs.inspect import Question, inspect
from lianzhi.jobs.listing import names
from lianzhi.jobs.measuring import measure_model, measure_text
from lianzhi.jobs.predict import predict
from lianzhi.jobs.prepare import Job, prepare, require_training_only, run

__all__ = [
    "Job",
    "Question",
    "checked_device",
    "dry_run",
    "evaluate",
    "inspect",
    "measure_model",
    "measure_text",
    "names",
    "predict",
    "prepare",
    "require_training_only",
    "run",
]
