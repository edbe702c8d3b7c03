"""What the tab key offers, how quick it is, and what is said of a misspelt call."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lianzhi
from lianzhi import jobs
from lianzhi.cli import complete, main
from lianzhi.jobs.listing import REGISTRIES

LISTED = {
    "criteria": "taylor",
    "losses": "dkd",
    "methods": "pkd",
    "models": "resnet20",
    "observers": "entropy",
    "tasks": "sst2",
    "targets": "openvino",
    "techniques": "gptq",
}
LEAN = """
import sys, time
start = time.process_time()
from lianzhi.cli import main
main({arguments})
heavy = {{"torch", "numpy", "yaml", "pyarrow", "onnx"}} & set(sys.modules)
print("\\n", sorted(heavy), time.process_time() - start)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def shell(words: str, kind: str = "bash") -> str:
    """What the program answers a shell that completes the last of these words."""
    begun = words.split(" ")
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(begun) - 1), "_TYPER_COMPLETE_ARGS": words}
    environment = {
        **os.environ,
        **asked,
        "PYTHONPATH": str(Path(lianzhi.__file__).parents[1]),
        "_LIANZHI_COMPLETE": f"complete_{kind}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "import sys; from lianzhi.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_version_import_no_library():
    environment = {**os.environ, "PYTHONPATH": str(Path(lianzhi.__file__).parents[1])}
    for arguments in (["--help"], ["--version"], ["compress", "--help"]):
        code = LEAN.format(arguments=arguments)
        printed = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        heavy, seconds = printed.stdout.strip().splitlines()[-1].split("] ")
        assert heavy.strip() == "["
        assert float(seconds) < 1


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_the_program_answers_the_shells(kind):
    found = shell("lianzhi meas", kind)
    assert "measure" in found
    assert "compress" not in found


def test_names_are_offered_and_kept_for_the_next_time(tmp_path):
    assert "resnet20" in shell("lianzhi inspect resnet2")
    kept = json.loads((tmp_path / "cache" / "names.json").read_text())
    assert {name for name, _ in kept["names"]["criteria"]} == {row["name"] for row in jobs.names("criteria")}
    assert "tensorrt" in shell("lianzhi export x --target te")


def test_every_registry_is_listed():
    source = Path(lianzhi.__file__).parent
    texts = [
        file.read_text(encoding="utf-8")
        for file in source.rglob("*.py")
        if file.name != "registry.py" or file.parent != source
    ]
    kinds = {
        kind for text in texts for kind in re.findall(r'^registry = Registry\("(\w+)"', text, re.MULTILINE)
    }
    assert kinds == set(complete.KINDS) == set(LISTED) == set(REGISTRIES)


@pytest.mark.parametrize(("kind", "name"), LISTED.items())
def test_every_kind_of_name(kind, name):
    offered = dict(complete.named(kind)(name[:3]))
    assert offered[name] == next(row["summary"] for row in jobs.names(kind) if row["name"] == name)
    assert all(item.startswith(name[:3]) for item in offered)


def test_kept_names_are_read_anew_when_a_file_or_version_changed(tmp_path, monkeypatch):
    state = complete._state()
    assert state == complete._state()
    assert complete.named("criteria")("l1")
    file = tmp_path / "cache" / "names.json"
    changed = {"state": state, "names": {"criteria": [["l1x", ""]]}}
    file.write_text(json.dumps(changed))
    assert complete.named("criteria")("l1") == [("l1x", "")]
    monkeypatch.setattr(complete, "__version__", "99")
    assert [name for name, _ in complete.named("criteria")("l1")] == ["l1"]
    file.write_text("{ damaged")
    assert [name for name, _ in complete.named("criteria")("l1")] == ["l1"]


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "file"))
    assert complete.named("criteria")("l1")


def test_recipes_and_models_are_offered(tmp_path):
    for name in (
        "recipe.yaml",
        "other.yml",
        "net.onnx",
        "notes.txt",
        "recipes/demo.yaml",
        "sub/deep.yaml",
        "net.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("out/demo", "saved"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "architecture.json").touch()
    names = lambda offered: [name for name, _ in offered]  # noqa: E731
    assert names(complete.recipes("")) == ["net.onnx", "other.yml", "recipe.yaml", "recipes/demo.yaml"]
    assert names(complete.recipes("sub/")) == ["sub/deep.yaml"]
    assert names(complete.recipes("./rec")) == ["recipe.yaml"]
    assert names(complete.models("")) == ["net.onnx", "out/demo", "saved"]
    assert names(complete.models("out/d")) == ["out/demo"]
    assert {"net.py", "saved", "resnet20"} <= set(names(complete.any_model("")))
    assert names(complete.listed("m")) == ["methods", "models"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("compres x", "no such command 'compres'; did you mean 'compress'?"),
        ("zzz", "no such command 'zzz'; known: compress, evaluate, export"),
        ("recipe.yaml", "'recipe.yaml' is no command; did you mean: lianzhi compress recipe.yaml"),
        ("measure out --runtimes onnxruntime", "no such option '--runtimes'; did you mean '--runtime'?"),
        ("measure out --qqqqq", "no such option '--qqqqq' (see: lianzhi measure --help)"),
        ("list criterions", "did you mean 'criteria'?"),
        ("measure ot", "ot: no such artifact folder or file; did you mean 'out'?"),
        ("measure out/dmo", "out/dmo: no such artifact folder or file; did you mean 'out/demo'?"),
        ("measure far/away", "far/away: no such artifact folder or file"),
        ("compress recip.yaml", "did you mean 'recipe.yaml'?"),
        ("inspect resnet-20", "unknown model 'resnet-20'; did you mean 'resnet20'?"),
        ("init -o x.yaml --model lenet5 --task sinthetic", "did you mean 'synthetic'?"),
        ("init --goal smalest", "did you mean 'smallest'?"),
    ],
)
def test_what_was_meant(call, message, tmp_path, capsys):
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "out" / "demo").mkdir(parents=True)
    assert main(call.split()) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_completing_is_quick_once_names_are_kept():
    complete.named("models")("r")
    start = time.process_time()
    for _ in range(3):
        complete.named("models")("r")
    assert (time.process_time() - start) / 3 < 0.3


def test_every_name_that_a_command_takes_is_completed():
    """Options and arguments by the words of their help; what is not offered here is a path, a number or a text."""
    import typer.main

    from lianzhi.cli.main import app

    offered = {
        "--runtime",
        "--target",
        "--task",
        "--criterion",
        "--precision",
        "--device",
        "--split",
        "--goal",
        "--from",
    }
    seen = set()
    for name, command in typer.main.get_command(app).commands.items():
        for item in command.params:
            for option in {*item.opts} & (offered | {"recipe", "kind", "model", "runs"}):
                assert item._custom_shell_complete is not None, f"{name} {option}"
                seen.add(option)
    assert offered <= seen
