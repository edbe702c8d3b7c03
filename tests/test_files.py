"""Files are whole or absent, on a full disk too; what is read is checked first."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from lianzhi import files
from lianzhi.errors import ArtifactError


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    file = files.write_text(tmp_path / "a.txt", "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"a\.txt cannot be written: the disk is full; free some space"):
        files.write_text(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


_FULL = """
import os, resource, sys, torch
from lianzhi import files
from lianzhi.errors import ArtifactError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = sys.argv[1]
for write in (
    lambda: files.write_bytes(folder + "/b", bytes(200_000)),
    lambda: files.write_tensors(folder + "/t.safetensors", {"w": torch.zeros(100_000)}),
):
    try:
        write()
    except ArtifactError as error:
        print(error)
print(os.listdir(folder))
"""


def test_a_disk_that_is_really_full(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    lines = done.stdout.splitlines()
    assert [line.count("the disk is full") for line in lines] == [1, 1, 0]
    assert lines[2] == "[]"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_permission_is_explained(code):
    assert "permission denied" in str(files.explain(OSError(code, "no"), "x", "written"))


@pytest.mark.parametrize("look", [files.require_writable, files.require_empty])
@pytest.mark.parametrize(
    ("name", "said"), [("x" * 300, "file name too long"), ("a\0b", "embedded null byte")]
)
def test_a_name_that_no_file_can_have(tmp_path, look, name, said):
    with pytest.raises(ArtifactError, match=said):
        look(tmp_path / name)


def test_folders(tmp_path):
    assert files.require_empty(tmp_path / "new") == tmp_path / "new"
    files.write_text(tmp_path / "mine.txt", "x")
    with pytest.raises(ArtifactError, match=r"not empty \(it holds mine\.txt\).*--force"):
        files.require_empty(tmp_path)
    with pytest.raises(ArtifactError, match="is a file"):
        files.require_empty(tmp_path / "mine.txt")
    with pytest.raises(ArtifactError, match="a folder of that name is needed"):
        files.make_folder(tmp_path / "mine.txt")
    assert files.make_folder(tmp_path / "a" / "b").is_dir()


def test_a_folder_is_whole_or_absent(tmp_path):
    target = tmp_path / "out"

    def interrupted() -> None:
        with files.whole_folder(target) as folder:
            files.write_text(folder / "a", "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []
    with files.whole_folder(target) as folder:
        files.write_text(folder / "a", "1")
        assert not target.exists()
    assert os.listdir(tmp_path) == ["out"]


def test_overwriting_keeps_what_is_not_ours(tmp_path):
    target = files.make_folder(tmp_path / "out")
    for name in ("architecture.json", "model.onnx", "notes.txt"):
        files.write_text(target / name, "old")
    with pytest.raises(ArtifactError, match="not empty"), files.whole_folder(target):
        pass
    owned = frozenset({"architecture.json", "model.onnx"})
    with files.whole_folder(target, overwrite=True, owned=owned) as folder:
        files.write_text(folder / "architecture.json", "new")
    assert {name: (target / name).read_text() for name in os.listdir(target)} == {
        "architecture.json": "new",
        "notes.txt": "old",
    }
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_to_a_folder_stays_and_leads_to_what_was_written(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    (real / "mine").write_text("mine")
    link.symlink_to(real)
    for name in (link, f"{link}/"):
        with files.whole_folder(name, overwrite=True, owned=frozenset({"a"})) as folder:
            (folder / "a").write_text("new")
    assert link.is_symlink()
    assert sorted(path.name for path in real.iterdir()) == ["a", "mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


@pytest.mark.parametrize("at", [1, 2])
def test_an_interruption_while_the_old_folder_is_aside_brings_it_back(tmp_path, monkeypatch, at):
    folder, calls, real = tmp_path / "out", [], os.rename
    folder.mkdir()
    (folder / "a").write_text("old")

    def interrupted(source, target):
        calls.append(source)
        if len(calls) == at:
            raise KeyboardInterrupt
        real(source, target)

    def overwrite():
        with files.whole_folder(folder, overwrite=True, owned=frozenset({"a"})) as temporary:
            (temporary / "a").write_text("new")

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        overwrite()
    assert (folder / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_a_folder_that_a_killed_process_put_aside_comes_back(tmp_path, new, overwrite):
    """It was killed before the new folder was in its place, or after, while files that are not ours were carried over."""
    folder, aside = tmp_path / "out", tmp_path / f".out.{2**22 + 1}.before"
    aside.mkdir()
    (aside / "a").write_text("old")
    (aside / "mine").write_text("mine")
    if new:
        folder.mkdir()
        (folder / "a").write_text("new")
    if overwrite:
        with files.whole_folder(folder, overwrite=True, owned=frozenset({"a"})) as temporary:
            (temporary / "a").write_text("newest")
    else:
        with (
            pytest.raises(ArtifactError, match="is not empty"),
            files.whole_folder(folder, owned=frozenset({"a"})),
        ):
            pass
    assert (folder / "a").read_text() == ("newest" if overwrite else "new" if new else "old")
    assert (folder / "mine").read_text() == "mine"
    assert os.listdir(tmp_path) == ["out"]


def test_the_rest_of_a_killed_process_is_swept(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    files.make_folder(tmp_path / f".out.{ended.stdout.strip()}.writing" / "deep")
    alive = files.make_folder(tmp_path / f".out.{os.getppid()}.writing")
    with files.whole_folder(tmp_path / "out") as folder:
        files.write_text(folder / "a", "1")
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, "out"])


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/b", "", ".", "..", ".hidden", "a\0b", "a\n", None, 3, "x" * 300]
)
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(ArtifactError, match="not the name of a file in the folder"):
        files.member(tmp_path, name)


def test_links_and_pipes_are_not_read(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="is a link"):
        files.member(tmp_path, "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="not a plain file"):
        files.read_bytes(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="not a plain file"):
        files.tensor_table(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="no such file"):
        files.read_text(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"b": {"a": 1, "c": 0, "a": 1}}', "the key 'a' stands twice"),
        ("[" * 100_000, "nested deeper than"),
        ("[" + "[]," * 2_200_000 + "1]", "more than 4,194,304 values"),
        ("[" + "1," * 4_200_000 + "1]", "more than 4,194,304 values"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper than"),
        ("1" * 5000, "an integer of 5000 digits"),
        ("9223372036854775808", "does not fit in 64 bits"),
        ("1e999", "too large"),
        ("NaN", "NaN is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ('"\\ud800"', "half a character"),
        ('{"a": 1', "line 1"),
        ("", "line 1"),
    ],
)
def test_json_with_surprises(text, message):
    with pytest.raises(ArtifactError, match=message):
        files.parse_json(text)


def test_json_round_trip(tmp_path):
    value = {"a": [1, -2.5, None, True, "炼知 \U0001f600 ]]]["], "b": {}}
    assert files.read_json(files.write_json(tmp_path / "a.json", value)) == value
    assert files.parse_json('"\\ud83d\\ude00"') == "\U0001f600"
    with pytest.raises(ArtifactError, match="not JSON"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="not UTF-8"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(ArtifactError, match="at most 3 are read"):
        files.read_json(tmp_path / "a.json", limit=3)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn],
)
def test_tensor_round_trip(tmp_path, dtype):
    base = torch.randn(4, 6)
    saved = {
        "a": base.to(dtype).t(),
        "b": base.to(dtype)[1:3],
        "none": torch.zeros(0, 3).to(dtype),
        "one": torch.tensor(1).to(dtype),
    }
    file = files.write_tensors(tmp_path / "t.safetensors", saved)
    found = files.read_tensors(file)
    assert found.keys() == saved.keys()
    for name, tensor in saved.items():
        assert found[name].dtype is dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].float(), tensor.float())
    assert file.stat().st_mode & 0o777 == files.write_text(tmp_path / "x", "").stat().st_mode & 0o777


def test_tensors_read_outlive_their_file(tmp_path):
    file = files.write_tensors(tmp_path / "t.safetensors", {"a": torch.ones(1000)})
    found = files.read_tensors(file)
    file.write_bytes(b"")
    assert float(found["a"].sum()) == 1000


def crafted(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(
    shape: object = (1,), begin: object = 0, end: object = 4, dtype: object = "F32"
) -> dict[str, object]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": [begin, end],
    }


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry((1 << 40,), 0, 4 << 40)}, "describes"),
        ({"a": entry((1 << 62, 1 << 62), 0, 4)}, "does not fit in 4 bytes"),
        ({"a": entry((2,))}, "does not fit in 4 bytes"),
        ({"a": entry((-1,), 0, 4)}, "impossible shape"),
        ({"a": entry((True,), 0, 4)}, "impossible shape"),
        ({"a": entry("4")}, "impossible shape"),
        ({"a": entry((1,) * 20)}, "impossible shape"),
        ({"a": entry((1,), 4, 0)}, "impossible offsets"),
        ({"a": entry((1,), -4, 0)}, "impossible offsets"),
        ({"a": entry(), "b": entry()}, "overlap"),
        ({"a": entry((0,), 0, 0)}, "describes 0 bytes"),
        ({"a": entry(dtype="F99")}, "unknown type"),
        ({"a": entry(dtype=["F32"])}, "unknown type"),
        ({"a": 3}, "not described by"),
        ([], "not a table"),
        ({"__metadata__": {"a": 1}, "a": entry()}, "metadata"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"\xff", "not text"),
        (b"cos\nsystem\n(S'x'\ntR.", "damaged"),
    ],
)
def test_a_crafted_tensor_header(tmp_path, header, message):
    file = crafted(tmp_path / "t.safetensors", header, b"\0\0\0\0")
    with pytest.raises(ArtifactError, match=message):
        files.tensor_table(file)
    with pytest.raises(ArtifactError):
        files.read_tensors(file)


def test_a_header_that_claims_a_huge_length(tmp_path):
    with pytest.raises(ArtifactError, match="cut off"):
        files.tensor_table(crafted(tmp_path / "t.safetensors", {}, length=1 << 60))
    with pytest.raises(ArtifactError, match="cut off"):
        files.tensor_table(files.write_bytes(tmp_path / "short", b"abc"))


def test_a_truncated_tensor_file(tmp_path):
    file = files.write_tensors(tmp_path / "t.safetensors", {"a": torch.ones(10)})
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            files.read_tensors(file)


def test_reading_allocates_nothing_for_a_claim(tmp_path):
    """In a process that may not have more than a little memory beyond what it has."""
    file = crafted(tmp_path / "t.safetensors", {"a": entry((1 << 40,), 0, 4 << 40)}, b"\0" * 4)
    code = f"""
        import resource
        from lianzhi import files
        from lianzhi.errors import ArtifactError
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26),) * 2)
        try:
            files.read_tensors({str(file)!r})
        except ArtifactError:
            print("refused")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr
