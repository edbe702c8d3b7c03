"""The work behind each command, callable from Python as well: paths and names in, results out."""

from lianzhi.jobs.dry_run import dry_run
from lianzhi.jobs.evaluate import checked_device, evaluate
from lianzhi.jobs.export import export, export_text
from lianzhi.jobs.import_weights import Imported, import_weights
from lianzhi.jobs.init import Missing, Started, Wish, init
from lianzhi.jobs.inspect import Question, inspect
from lianzhi.jobs.listing import names
from lianzhi.jobs.measuring import measure_model, measure_text
from lianzhi.jobs.onnx_data import DataOptions
from lianzhi.jobs.onnx_file import OnnxResult, compress_onnx
from lianzhi.jobs.packing import pack, unpack
from lianzhi.jobs.predict import predict
from lianzhi.jobs.prepare import Job, prepare, require_training_only, run
from lianzhi.jobs.report import report

__all__ = [
    "DataOptions",
    "Imported",
    "Job",
    "Missing",
    "OnnxResult",
    "Question",
    "Started",
    "Wish",
    "checked_device",
    "compress_onnx",
    "dry_run",
    "evaluate",
    "export",
    "export_text",
    "import_weights",
    "init",
    "inspect",
    "measure_model",
    "measure_text",
    "names",
    "pack",
    "predict",
    "prepare",
    "report",
    "require_training_only",
    "run",
    "unpack",
]
