"""The table and the plots of weights by layer."""

from __future__ import annotations

from typing import Any

import pytest

from lianzhi.report import Report, weights


def layer(name: str, size: int, kept: float = 0.1) -> dict[str, Any]:
    coded = {
        "bits": 4,
        "entropy": 3.21,
        "coded": 3.25,
        "index_bits": 5,
        "index_entropy": 4.4,
        "index_coded": 4.5,
    }
    return {"name": name, "weights": 1000, "kept": kept, **coded, "bytes_shared": size + 10, "bytes": size}


def report(**last: Any) -> Report:
    drawn = {
        "name": "fc1",
        "low": -1.0,
        "high": 1.0,
        "counts": [1, 5, 9, 5],
        "values": [[-0.5, 8], [0.5, 12]],
    }
    rows = [
        {"step": "original"},
        {
            "step": "prune",
            "details": {
                "stage": {"layers": [layer("fc1", 500), layer("fc2", 600)], "bytes": 1300, "ratio": 8.0}
            },
        },
        {
            "step": "share_weights",
            "details": {
                "stage": {
                    "layers": [
                        layer("fc1", 80),
                        {**layer("fc2", 90, 0.3), "index_bits": 0, "index_coded": 0},
                    ],
                    "bytes": 200,
                    "ratio": 52.0,
                },
                "distributions": [drawn],
            },
        },
        {"step": "last", "details": last},
    ]
    return Report.from_json({"rows": rows})


def test_a_row_a_layer_and_one_of_all():
    found = weights.table(report())
    assert found is not None
    assert found.stages == ["prune", "share_weights"]
    values = [[name, *(value for value, _ in cells)] for name, cells in [*found.layers, *found.sums]]
    assert values == [
        ["fc1", "1.00k", "10.0%", "4", "5", "500 B", "80 B", "90 B", "50.0×"],
        ["fc2", "1.00k", "30.0%", "4", "–", "600 B", "90 B", "100 B", "44.4×"],
        ["all_layers", "2.00k", "20.0%", "–", "–", "1.10 kB", "170 B", "190 B", "47.1×"],
        ["whole_file", "–", "–", "–", "–", "1.30 kB", "200 B", "–", "52.0×"],
    ]
    below = [[below for _, below in cells if below] for _, cells in [*found.layers, *found.sums]]
    assert below == [
        ["4.00 kB", "3.21/3.25", "4.40/4.50"],
        ["4.00 kB", "3.21/3.25"],
        ["8.00 kB"],
        ["10.4 kB"],
    ]


def test_it_is_in_all_three_forms():
    made = report()
    for text in (made.table(), made.to_markdown(), made.to_html()):
        assert "fc2" in text
        assert "170 B" in text
        assert "3.21/3.25" in text
        assert "4.40/4.50" in text
        assert "whole file" in text
        assert "52.0×" in text
    assert max(map(len, made.table().splitlines())) <= 100
    assert made.to_html().count('class="scatter spread"') == 1
    assert made.to_html().count('class="shared"') == 2


def test_nothing_of_it_without_such_steps():
    plain = Report.from_json({"rows": [{"step": "original"}, {"step": "prune", "details": {"kept": 1}}]})
    assert weights.table(plain) is None
    assert "Weights by layer" not in plain.table() + plain.to_markdown()


@pytest.mark.parametrize(
    "bad",
    [
        {"stage": 3},
        {"stage": {"layers": [{"name": "x"}, 7, {**layer("x", 1), "bits": "4"}]}},
        {"distributions": [{"name": "x", "low": 0, "high": 1, "counts": [], "values": []}]},
        {"distributions": [{"name": "x", "low": None, "high": 1, "counts": [1], "values": [[0, 1]]}]},
        {"distributions": "no"},
    ],
)
def test_what_is_no_such_thing_is_left_out(bad):
    assert weights.table(report(**bad)) == weights.table(report())
    assert report(**bad).to_html().count('class="scatter spread"') == 1


def test_one_value_and_names_that_are_markup():
    drawn = {"name": "<b>", "low": 2.0, "high": 2.0, "counts": [7], "values": [[2.0, 7]]}
    page = report(distributions=[drawn], stage={"layers": [layer("<i>x</i>", 1)]}).to_html()
    assert "<i>x</i>" not in page
    assert page.count('class="scatter spread"') == 2


def test_parameters_that_are_not_zero_are_said():
    rows = [
        {"step": "original", "parameters": 267_000},
        {"step": "prune", "parameters": 267_000, "nonzero": 18_900},
    ]
    made = Report.from_json({"rows": rows})
    for text in (made.table(), made.to_markdown(), made.to_html()):
        assert "18.9k ≠ 0" in text
        assert "1.00×" not in text
