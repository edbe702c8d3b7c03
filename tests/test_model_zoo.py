"""The model zoo's pages: what git has is what the results give, and what was not measured is no number."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import shlex
import sys
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType
from xml.etree import ElementTree

import pytest

from lianzhi import distill

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    """The package `zoo`, as the scripts under `benchmarks/` see it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        package = importlib.import_module("zoo")
        for info in pkgutil.walk_packages(package.__path__, "zoo."):
            importlib.import_module(info.name)
        yield package


@pytest.fixture(scope="module")
def made(zoo: ModuleType) -> dict[str, str]:
    return zoo.book.book(zoo.results.Results(RESULTS))


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of our table below a heading, without its head."""
    (body,) = re.findall(rf"^### {re.escape(title)}\n(.*?)(?=^##|\Z)", page, re.M | re.S)
    lines = body.partition("```")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")
    ][2:]


def test_the_files_in_git_are_what_the_results_give(made):
    other = [name for name, content in made.items() if (ROOT / "docs" / name).read_text("utf-8") != content]
    assert other == [], "make zoo"
    assert {"model_zoo.md", "zh/model_zoo.md"} <= set(made)


def test_the_same_results_give_the_same_bytes(zoo, made):
    assert zoo.book.book(zoo.results.Results(RESULTS)) == made


def test_means_and_deviations_are_those_of_the_runs(made):
    runs = json.loads((RESULTS / "pruning_resnet56.json").read_text())["runs"]
    found = rows(made["model_zoo.md"], "ResNet-56 on CIFAR-10, beside Torch-Pruning")
    for reduction in ("2.1", "2.57"):
        tops = [runs[f"lianzhi + kd | {reduction} | {seed} | 1 epochs"]["top1"] * 100 for seed in range(3)]
        (row,) = [row for row in found if row[0] == "Lianzhi, distilled" and row[1].startswith(reduction[:3])]
        assert row[3] == f"{mean(tops):.2f} ± {stdev(tops):.2f}"
        assert float(row[4].replace("−", "-")) == pytest.approx(
            mean(tops) - 100 * runs["dense"]["top1"], abs=6e-3
        )
        assert row[-1] == "3"


def test_speeds_are_those_of_the_runs(made):
    runs = json.loads((RESULTS / "quantization.json").read_text())["runs"]
    timing = runs["resnet56 | openvino | ours | 0"]["latencies"]["64"]
    table = rows(made["model_zoo.md"], "Int8 by calibration: ResNets on CIFAR-10")
    (row,) = [row for row in table if row[:3] == ["ResNet-56", "OpenVINO", "int8"]]
    assert row[10] == f"{64_000 / timing['ms']:,.0f}"
    assert row[11] == f"{1 / timing['share']:.2f}×"


def test_without_results_there_is_no_number_of_ours(zoo, tmp_path):
    made = zoo.book.book(zoo.results.Results(tmp_path))
    assert set(made) == {"model_zoo.md", "zh/model_zoo.md"}  # no chart of nothing
    for name, words in (("model_zoo.md", "not measured yet"), ("zh/model_zoo.md", "尚未测量")):
        titles = re.findall(r"^### (.*)$", made[name], re.M)
        assert len(titles) > 15
        for title in titles:
            found = rows(made[name], title)
            assert found, title
            assert all(words in row for row in found), title
        assert not re.search(r"\| (0|0\.0+|0\.00 ± 0\.00|nan|None|0×|0 B)(?= \|)", made[name])


def test_a_run_more_changes_only_its_own_row(zoo, made, tmp_path):
    for file in RESULTS.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    data = json.loads((RESULTS / "quantization_mixed.json").read_text())
    data["runs"]["mixed, 0.18 of the float bytes"] = {
        "top1": 0.8642,
        "bytes": 214_000,
        "layers": {"int8": 20},
    }
    (tmp_path / "quantization_mixed.json").write_text(json.dumps(data))
    after = zoo.book.book(zoo.results.Results(tmp_path))["model_zoo.md"]
    changed = [
        new
        for title in re.findall(r"^### (.*)$", after, re.M)
        for old, new in zip(rows(made["model_zoo.md"], title), rows(after, title), strict=True)
        if old != new
    ]
    assert [" | ".join(row) for row in changed] == [
        "mixed, 0.18 of the float bytes | 86.42 | −0.55 | 214 kB | 20 int8 | 1"
    ]


def test_a_chart_has_every_entry_that_was_measured(zoo, made):
    tables = zoo.page.tables(zoo.results.Results(RESULTS)).values()
    entries = [entry for table, _ in tables for entry in table.entries]
    for board in zoo.boards.BOARDS:
        for which, key in (("size", "bytes"), ("time", "time")):
            count = sum(entry.board == board.name and bool(getattr(entry, key)) for entry in entries)
            name = f"img/zoo-{board.name}-{which}.svg"
            assert (count > 1) == (name in made)
            if count > 1:
                marks = ElementTree.fromstring(made[name]).iter("{http://www.w3.org/2000/svg}g")
                assert sum(1 for _ in marks) == count
    assert {entry.board for entry in entries} <= {board.name for board in zoo.boards.BOARDS}
    assert {entry.kind for entry in entries} <= set(zoo.charts.KINDS)


def test_a_chart_is_shown_where_it_lies_and_in_words(made):
    for name in ("model_zoo.md", "zh/model_zoo.md"):
        pictures = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", made[name])
        assert len(pictures) == len([file for file in made if file.startswith("img/")]) / 2
        for words, target in pictures:
            path = (Path(name).parent / target).as_posix().replace("zh/../", "")
            assert path in made
            assert "%" in words


def test_the_chart_is_coloured_for_light_and_dark(made):
    drawn = made["img/zoo-cifar10-size.svg"]
    style = drawn[drawn.index("<style>") : drawn.index("</style>")]
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for part in (light, dark):
        assert all(f"--{name}: #" in part for name in ("panel", "ink", "muted", "grid", "is"))
    for kind in set(re.findall(r'class="mark (\w+)"', drawn)):
        assert f".{kind} {{" in light
        assert f".{kind} {{" in dark
    assert "http" not in drawn.replace('xmlns="http://www.w3.org/2000/svg"', "")  # it loads nothing


def test_both_languages_show_the_same_numbers(made):
    one, other = (
        [re.findall(r"[−+±]?\d[\d.]*[×%]?", line) for line in made[name].splitlines() if line.startswith("|")]
        for name in ("model_zoo.md", "zh/model_zoo.md")
    )
    assert len(one) == len(other) > 150
    assert one == other


def test_the_english_page_has_no_chinese_but_the_link(made):
    rest = made["model_zoo.md"].replace("[中文]", "")
    assert re.findall(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]", rest) == []


def test_every_table_names_commands_that_are_there(made):
    blocks = re.findall(r"```console\n(.*?)```", made["model_zoo.md"], re.S)
    assert len(blocks) == len(re.findall(r"^### ", made["model_zoo.md"], re.M))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in "".join(blocks).splitlines():
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in targets
        else:
            named = [word for word in words if word.startswith(("benchmarks/", "recipes/"))]
            assert named, line
            assert all((ROOT / word).is_file() for word in named), line


def test_what_others_published_has_a_source_and_a_place(zoo, made):
    data = zoo.published.data()
    names = set(zoo.page.tables(zoo.results.Results(RESULTS)))
    assert set(data["tables"]) <= names
    for name in data["tables"]:
        found = zoo.published.of(name)
        assert found.rows
        for row in found.rows:
            assert data["sources"][row[0]]["url"].startswith("https://")
            assert all(cell is None or isinstance(cell, str) for cell in row)
    used = {row[0] for name in data["tables"] for row in zoo.published.of(name).rows}
    assert used == set(data["sources"])
    page = made["model_zoo.md"]
    references = set(re.findall(r"\]\[([\w-]+)\]", page))
    assert references == set(re.findall(r"^\[([\w-]+)\]: https", page, re.M)) == set(data["sources"])


def test_published_figures_that_are_amiss_are_refused(zoo, monkeypatch):
    data = {"sources": {"a": {}}, "tables": {"t": {"heads": ["model"], "rows": [["a", "x", "1"]]}}}
    monkeypatch.setattr(zoo.published, "data", lambda: data)
    with pytest.raises(ValueError, match="has 2 figures, the head 1"):
        zoo.published.of("t")
    data["tables"]["t"]["rows"] = [["b", "x"]]
    with pytest.raises(ValueError, match="no source is called 'b'"):
        zoo.published.of("t")
    data["tables"]["t"] = {"heads": ["colour"], "rows": [["a", "x"]]}
    with pytest.raises(ValueError, match="no Chinese word for colour"):
        zoo.published.of("t")


def test_every_record_says_where_it_was_made(zoo, tmp_path, monkeypatch):
    records = importlib.import_module("records")
    old = {"runs": {"a": {"top1": 0.5}}, "command": "python old.py", "environment": {"cpu": "one"}}
    (tmp_path / "x.json").write_text(json.dumps(old))
    monkeypatch.setattr(records.measure, "environment", lambda: {"cpu": "two"})
    found = records.Records("x", folder=tmp_path)
    assert found.environment("a") == {"cpu": "one"}
    found.add("b", {"top1": 0.6})
    again = records.Records("x", folder=tmp_path)
    assert [again.environment(key) for key in "ab"] == [{"cpu": "one"}, {"cpu": "two"}]
    assert again.data["made"]["a"]["command"] == "python old.py"
    results = zoo.results.Results(tmp_path)
    results.find("x", "b")
    assert [dict(machine)["cpu"] for machine in results.machines(results.used)] == ["two"]


def test_a_record_that_is_timed_again_still_says_what_made_it(zoo, tmp_path, monkeypatch):
    records = importlib.import_module("records")
    found = records.Records("x", folder=tmp_path)
    for cpu, keep in (("one", found.add), ("two", found.time), ("three", found.time)):
        monkeypatch.setattr(records.measure, "environment", lambda cpu=cpu: {"cpu": cpu})
        monkeypatch.setattr(records.sys, "argv", ["x.py", cpu])
        keep("a", {"cpu": cpu})
    made = found.data["made"]["a"]
    assert (found["a"], made["command"], made["environment"]) == ({"cpu": "three"}, "python x.py one", 0)
    assert made["timed"] == {"command": "python x.py three", "environment": 2}
    assert found.environment("a") == {"cpu": "three"}


def test_the_examples_in_the_docstrings_run(zoo):
    tried = 0
    for info in pkgutil.walk_packages(zoo.__path__, "zoo."):
        found = doctest.testmod(importlib.import_module(info.name))
        assert found.failed == 0, info.name
        tried += found.attempted
    assert tried >= 5


def test_every_part_of_the_quick_run_is_a_command_that_is_there(zoo):
    parts = zoo.quick.parts(Path("out/zoo-quick"))
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    for index, part in enumerate(parts):
        assert set(part.after) <= set(names[:index])  # so that two at a time never wait for each other
        script = next(word for word in part.command if word.startswith(("benchmarks/", "recipes/")))
        assert (ROOT / script).is_file()
        if script.startswith("benchmarks/"):
            source, records = ((ROOT / file).read_text() for file in (script, "benchmarks/records.py"))
            known = source + records
            assert all(f'"{word}"' in known for word in part.command if word.startswith("--")), part.name
            assert ("out/zoo-quick/results" in part.command) == ("from records import" in source), part.name


def test_every_table_is_remade_by_the_quick_run(zoo):
    made = " ".join(" ".join(part.command) for part in zoo.quick.parts(Path("out")))
    for table, _ in zoo.page.tables(zoo.results.Results(RESULTS)).values():
        scripts = {
            name.removesuffix(suffix)
            for name in table.reads
            for suffix in ("_zoo", "_transformers", "_vision")
        }
        assert any(f"benchmarks/{script}.py" in made for script in scripts), table.name


def test_the_quick_run_goes_on_where_it_was(zoo, tmp_path, monkeypatch, capsys):
    def call(name: str, code: str, *after: str) -> object:
        return zoo.quick.Part(name, (sys.executable, "-c", code), after)

    seen = tmp_path / "seen"
    note = f"open({str(seen)!r}, 'a').write('x')"
    parts = [
        call("good", note),
        call("bad", f"{note}; raise SystemExit('no data here')"),
        call("waits", note, "bad"),
        call("last", note, "good"),
    ]
    monkeypatch.setattr(zoo.quick, "parts", lambda folder: parts)
    assert zoo.quick.run(tmp_path / "q") == ["bad", "waits"]
    assert seen.read_text() == "xxx"
    shown = capsys.readouterr().out
    assert "bad ended with 1: no data here" in shown
    assert "waits: left out, since bad failed" in shown
    parts[1] = call("bad", note)
    assert zoo.quick.run(tmp_path / "q") == []
    assert seen.read_text() == "xxx" + "xx"  # only what was not done
    assert set(json.loads((tmp_path / "q" / "seconds.json").read_text())) == {"good", "bad", "waits", "last"}


def test_a_page_of_trials_says_so(zoo):
    page = zoo.page.page(zoo.results.Results(RESULTS, small=True), "en", lambda section, language: [])
    assert "Made at small size" in page.partition("## ")[0]


def test_every_method_of_the_text_benchmark_is_a_step_that_a_recipe_takes(zoo):
    benchmark = importlib.import_module("text_students")
    for method in benchmark.METHODS:
        step = benchmark.step_of(method, 1, data="corpora")
        distill.methods.registry.get(step.method).config(**step.options)


def test_the_epochs_of_a_text_student_are_those_of_all_its_stages(zoo, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "distill")
    lessons, benchmark = importlib.import_module("lessons"), importlib.import_module("text_students")
    for method in ("kd", "pkd", "minilm", "theseus", "theseus_plus", "distilbert"):
        own = benchmark.METHODS[method]
        stages = lessons.taught(lessons.setting(), own["method"], **own.get("options", {})).stages
        assert benchmark.schedule_of(method, 3) == " + ".join("3" for _ in stages), method
