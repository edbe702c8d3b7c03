"""The registry of targets: what each offers, and what it says where it cannot."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import lianzhi as lz
from lianzhi import deploy, measure
from lianzhi.errors import RecipeError, TargetError


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return deploy.export_onnx(nn.Linear(3, 2), torch.zeros(1, 3), tmp_path_factory.mktemp("m") / "m.onnx")


@pytest.mark.parametrize("name", deploy.registry.names())
def test_every_target_runs_a_model(name, linear):
    runtime = deploy.registry.get(name).build
    assert runtime.name == name
    if not runtime.installed():
        pytest.skip(f"{name} is not installed")
    assert runtime.version()
    model = linear if runtime.takes_onnx else nn.Linear(3, 2)
    if not runtime.executes:
        with pytest.raises(TargetError, match="does not run them on this machine"):
            runtime.load(model)
        return
    for precision in runtime.precisions(model):
        session = runtime.load(model, precision=precision, threads=1)
        assert session(torch.zeros(2, 3)).shape == (2, 2)
        assert session.precision == precision
        assert name in repr(session)


@pytest.mark.parametrize("name", deploy.registry.names())
def test_a_library_that_is_missing_names_the_extra(name, linear, monkeypatch):
    runtime = deploy.registry.get(name).build
    if not (runtime.executes or runtime.takes_onnx):
        pytest.skip(f"{name} is written without its library")
    monkeypatch.setattr(runtime, "package", "no_such_library", raising=False)
    assert not runtime.installed()
    assert runtime.version() == ""
    with pytest.raises(TargetError, match=f"target '{name}' is not installed; run: pip install"):
        deploy.load(linear, runtime=name)
    if runtime.extra:
        with pytest.raises(TargetError, match=rf"'lianzhi\[{runtime.extra}\]'"):
            deploy.load(linear, runtime=name)


def test_unknown_runtime_precision_threads(linear):
    with pytest.raises(RecipeError, match="unknown target 'onnxruntim'; did you mean 'onnxruntime'"):
        deploy.load(linear, runtime="onnxruntim")
    with pytest.raises(TargetError, match=r"does not run .* in int8 on this machine; it offers f32"):
        deploy.load(linear, runtime="onnxruntime", precision="int8")
    with pytest.raises(TargetError, match="threads is 0"):
        deploy.load(linear, runtime="onnxruntime", threads=0)
    with pytest.raises(TargetError, match="a module or an artifact folder"):
        deploy.load(linear, runtime="pytorch")


def test_bf16_is_offered_only_where_the_hardware_has_it(linear, monkeypatch):
    runtime = deploy.registry.get("openvino").build
    monkeypatch.setattr(runtime, "_has_bf16", lambda: False, raising=False)
    assert runtime.precisions(linear) == ["f32"]
    monkeypatch.setattr(runtime, "_has_bf16", lambda: True, raising=False)
    assert runtime.precisions(linear) == ["f32", "bf16"]


def test_precision_hint_reaches_openvino(linear, monkeypatch):
    runtime = deploy.registry.get("openvino").build
    monkeypatch.setattr(runtime, "_has_bf16", lambda: True, raising=False)
    for precision in ("f32", "bf16"):
        session = runtime.load(linear, precision=precision, threads=1)
        compiled = session.request.get_compiled_model()
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        assert hint == precision or (
            precision == "bf16" and hint == "f32"
        )  # the plug-in falls back without it
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_pytorch_session_restores_mode_and_threads():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    model[1].eval()
    before = torch.get_num_threads()
    session = deploy.load(model, runtime="pytorch", threads=2)
    first, second = session(torch.ones(4, 3)), session(torch.ones(4, 3))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert model.training
    assert model[0].training
    assert not model[1].training
    assert torch.get_num_threads() == before


def test_a_compiled_module_computes_the_same(linear):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    session = deploy.load(model, runtime="pytorch", compiled=True)
    assert session.runtime == "torch.compile"
    x = torch.randn(5, 3)
    torch.testing.assert_close(session(x), model(x).detach())
    with pytest.raises(TargetError, match="compiled is for the runtime pytorch"):
        deploy.load(linear, runtime="onnxruntime", compiled=True)


def test_import_is_lean():
    code = (
        "import sys, lianzhi.deploy, lianzhi.measure, lianzhi.quantize\n"
        "heavy = {'onnx', 'onnxruntime', 'onnxscript', 'openvino', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Several(nn.Module):
    """Gives a dict, one without logits, a tuple or one tensor."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(3, 2), how

    def forward(self, x: torch.Tensor) -> Any:
        logits, more = self.layer(x), x + 1
        named = {"logits": logits, "features": more}
        return {"named": named, "others": {"a": logits, "b": more}, "tuple": (logits, more), "one": logits}[
            self.how
        ]


@pytest.mark.parametrize("how", ["named", "others", "tuple", "one"])
@pytest.mark.parametrize("runtime", ["pytorch", "onnxruntime", "openvino"])
def test_logits_have_their_name_in_every_runtime(runtime, how, tmp_path):
    """A metric that reads them of the model by name reads them of the file too, and one by place still does."""
    model, x = Several(how).eval(), torch.randn(4, 3)
    if runtime != "pytorch":
        if not deploy.registry.get(runtime).build.installed():
            pytest.skip(f"{runtime} is not installed")
        file = deploy.export_onnx(model, x[:1], tmp_path / "m.onnx")
    session = deploy.load(model if runtime == "pytorch" else file, runtime=runtime)
    seen: list[Any] = []

    def metric(outputs: Any, labels: torch.Tensor) -> float:
        seen.append(outputs)
        return 0.0

    data = [(x, torch.zeros(4, dtype=torch.long))]
    task = lz.Task(test=data, metrics={"none": metric}, example_inputs=x[:1])
    measure.evaluate(session, task, split="test")
    found, wanted = seen[0], model(x)
    close = {"check_device": False, "rtol": 1e-2, "atol": 1e-2}
    if how == "named":
        torch.testing.assert_close({**found}, wanted, **close)
        if runtime != "pytorch":
            torch.testing.assert_close((found[0], found[1]), tuple(wanted.values()), **close)
    elif how == "others" and runtime != "pytorch":
        torch.testing.assert_close(found, tuple(wanted.values()), **close)
    else:
        torch.testing.assert_close(found, wanted, **close)
