"""Calibration tables: the same model again without data; a table of another model, target or data is refused."""

import json

import pytest
import torch
from nets import Residual, made

from lianzhi.errors import DataError, RecipeError
from lianzhi.quantize import CalibrationTable, quantize


@pytest.fixture(scope="module")
def online():
    model, inputs = made(Residual)
    return model, inputs, quantize(model, inputs[:1], list(inputs.split(16)), target="tensorrt")


@pytest.fixture
def table(online, tmp_path):
    return online[2].save_table(tmp_path / "table.json")


def test_offline_gives_the_same_model(online, table):
    model, inputs, form = online
    again = quantize(model, inputs[:1], None, target="tensorrt", calibration_table=table)
    before, after = form.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert again.report["calibration"]["samples"] == len(inputs)
    assert again.report["output_sqnr_db"] is None
    assert "not measured" in str(again)
    measured = quantize(model, inputs[:1], list(inputs.split(16)), target="tensorrt", calibration_table=table)
    assert measured.report["output_sqnr_db"] == pytest.approx(form.report["output_sqnr_db"])


def test_amax(online):
    form = online[2]
    assert set(form.amax) == {row["name"] for row in form.report["values"]}
    for row in form.report["values"]:
        assert form.amax[row["name"]] == pytest.approx(row["scale"] * 127, rel=1e-6)


def test_another_model_target_data_technique(online, table):
    model, inputs, _ = online
    other = made(Residual)[0]
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(DataError, match="of another model; calibrate again"):
        quantize(other, inputs[:1], None, target="tensorrt", calibration_table=table)
    with pytest.raises(DataError, match="of another target: 'tensorrt', and not 'openvino'"):
        quantize(model, inputs[:1], None, target="openvino", calibration_table=table)
    with pytest.raises(DataError, match="of another data"):
        quantize(model, inputs[:1], [inputs[:3]], target="tensorrt", calibration_table=table)
    with pytest.raises(DataError, match="of another techniques"):
        quantize(
            model,
            inputs[:1],
            None,
            target="tensorrt",
            calibration_table=table,
            techniques=["equalization"],
        )


def test_a_technique_that_reads_data_wants_them(online, table):
    model, inputs, _ = online
    with pytest.raises(DataError, match="'gptq' reads calibration data"):
        quantize(model, inputs[:1], None, target="tensorrt", calibration_table=table, techniques=["gptq"])
    with pytest.raises(DataError, match="calibration is None"):
        quantize(model, inputs[:1], None, target="tensorrt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("ranges"), "damaged"),
        (lambda held: held.update(ranges=[1]), "damaged"),
        (lambda held: held["ranges"].update(x=[1.0, -1.0]), "damaged"),
        (lambda held: held["ranges"].update(x=["a", "b"]), "damaged"),
        (lambda held: held["ranges"].pop("x"), "no range for 'x'"),
        (lambda held: held.update(format=2), "of format 2"),
        (lambda held: held.update(kind="report"), "not a calibration table"),
        (lambda held: held.update(target=7), "damaged"),
    ],
)
def test_damaged_tables(online, table, change, message):
    model, inputs, _ = online
    held = json.loads(table.read_text())
    change(held)
    table.write_text(json.dumps(held))
    with pytest.raises(DataError, match=message):
        quantize(model, inputs[:1], None, target="tensorrt", calibration_table=table)


def test_truncated_missing_and_no_table(online, table, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        CalibrationTable.read(tmp_path / "none.json")
    table.write_text(table.read_text()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        CalibrationTable.read(table)
    model, inputs, _ = online
    weights = quantize(model, inputs[:1], [inputs], activations="float")
    with pytest.raises(DataError, match="no calibration table"):
        weights.save_table(tmp_path / "t.json")


@pytest.mark.parametrize("weights", ["int8", "int4", "float16"])
def test_a_table_that_nobody_would_read_is_refused(tmp_path, weights):
    model, inputs = made(Residual)
    table = quantize(model, inputs[:1], [inputs]).save_table(tmp_path / "table.json")
    with pytest.raises(RecipeError, match="calibration_table: activations are float"):
        quantize(model, inputs[:1], [inputs], weights=weights, activations="float", calibration_table=table)
