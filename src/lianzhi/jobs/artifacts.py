"""Find one's way in a saved model: an artifact folder, or one ONNX or packed file in it or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lianzhi import artifact, codebook, deploy, files
from lianzhi.errors import ArtifactError, RecipeError

LZC = ".lzc"


@dataclass(frozen=True)
class Where:
    """A runtime and a precision."""

    runtime: str
    precision: str


class Saved:
    """A MODEL argument: what lies there, and what its own report says of it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise ArtifactError(f"{path}: no such artifact folder or file")
        self.folder = self.path if self.path.is_dir() else self.path.parent
        if self.path.is_dir() and not (self.path / "architecture.json").is_file():
            raise ArtifactError(f"{path}: not an artifact folder (it has no architecture.json)")
        if self.path.is_dir():
            artifact.check_folder(self.path)
        elif not self.path.is_file():
            raise ArtifactError(
                f"{path} is a pipe or a device; give an artifact folder, an .onnx or a .lzc file"
            )
        self.packed = self.path.is_file() and self.path.suffix == LZC

    @property
    def is_module(self) -> bool:
        """Whether a module can be made of it: an artifact folder, or a packed file."""
        return self.path.is_dir() or self.packed

    def module(self) -> nn.Module:
        """The module, in eval mode."""
        return codebook.load(self.path)

    def example_inputs(self) -> Any:
        """Inputs that the module takes."""
        return codebook.example_inputs(self.path)

    def json(self, name: str) -> dict[str, Any] | None:
        """One of the folder's JSON files, if it is there."""
        file = files.member(self.folder, name)
        return files.read_json(file) if file.is_file() else None

    @property
    def decision(self) -> dict[str, Any] | None:
        """Runtime and precision that the run decided on; only for the file that it decided on."""
        if self.path.is_file() and self.path.name != "model.onnx":
            return None
        report = self.json("report.json")
        decision = report.get("decision") if isinstance(report, dict) else None
        if decision in (None, {}):  # target: pytorch leaves nothing to decide
            return None
        if not isinstance(decision, dict) or not all(
            isinstance(decision.get(key), str) for key in ("runtime", "precision")
        ):
            raise ArtifactError(
                f"{self.folder / 'report.json'}: damaged (decision); give --runtime, or restore it"
            )
        return decision

    @property
    def task(self) -> dict[str, Any] | None:
        """The task of the recipe that lies beside the model."""
        file = files.member(self.folder, "recipe.yaml")
        if not file.is_file():
            return None
        try:
            task = files.parse_yaml(files.read_text(file), str(file))["task"]
        except (RecipeError, ArtifactError, KeyError, TypeError):
            task = ""
        named = isinstance(task, dict) and all(isinstance(key, str) for key in [*task, task.get("name")])
        if task is not None and not named:
            raise ArtifactError(
                f"{file}: damaged, so it is not known which task the model is for; restore it"
            )
        return task

    def model_file(self, runtime: str) -> Path | nn.Module:
        """What the runtime loads: the folder itself for PyTorch (of a packed file the module), else the ONNX file."""
        if self.packed:
            if runtime != "pytorch":
                raise ArtifactError(
                    f"{self.path}: a packed file runs in PyTorch; for {runtime} write its file first: "
                    f"lianzhi export {self.path} --target {runtime} -o FOLDER"
                )
            return self.module()
        if self.path.is_file():
            return self.path
        if runtime == "pytorch":
            return self.path
        file = self.path / "model.onnx"
        if not file.is_file():
            raise ArtifactError(f"{self.path}: holds no model.onnx for {runtime}; use --runtime pytorch")
        return file

    def where(self, runtime: str | None, precision: str | None) -> Where:
        """The runtime and precision to use: as asked, else as decided, else what the file holds."""
        decision = self.decision
        if runtime is None:
            if decision:
                runtime = deploy.stand_in(decision["runtime"])
            else:
                has_onnx = (self.path.is_file() and not self.packed) or (self.path / "model.onnx").is_file()
                runtime = "onnxruntime" if has_onnx else "pytorch"
        if precision is None:
            if decision and deploy.stand_in(decision["runtime"]) == runtime:
                precision = decision["precision"]
            elif self.packed:
                precision = "f32"
            else:
                precision = deploy.registry.get(runtime).build.precisions(self.model_file(runtime))[0]
        return Where(runtime, precision)
