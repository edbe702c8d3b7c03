"""Several writers of one file: what killed ones left is removed, and what live ones still write is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from lianzhi import files

_KILLED = """
import os, signal, sys
from lianzhi import files
with files.writing(sys.argv[1]) as temporary:
    temporary.write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_write_left_goes_with_the_first_one_an_hour_later(tmp_path):
    file, other = tmp_path / "a.lzc", tmp_path / "ba.lzc"
    for one in (file, other):
        subprocess.run([sys.executable, "-c", _KILLED, str(one)], check=False, env=os.environ)
    alive = tmp_path / f".a.lzc.{os.getppid()}-0.writing"
    alive.write_bytes(b"of a process that lives")
    assert len(os.listdir(tmp_path)) == 3
    files.write_bytes(file, b"soon")
    assert len(os.listdir(tmp_path)) == 4, "it may be of a process of another machine"
    before = time.time() - 3601
    for name in os.listdir(tmp_path):
        os.utime(tmp_path / name, (before, before))
    files.write_bytes(file, b"new")
    assert file.read_bytes() == b"new"
    left = sorted(os.listdir(tmp_path))
    assert left[0] == alive.name
    assert left[1].startswith(".ba.lzc.")  # of another file
    assert left[2:] == ["a.lzc"]


_OUT_OF_SIGHT = """
import os, sys
from lianzhi import files
number = int(sys.argv[2])
os.getpid = lambda: number
with files.writing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"of the other machine")
    print("written", flush=True)
    input()
"""


def test_a_writer_on_another_machine_keeps_its_file(tmp_path):
    """Of a folder that machines or containers share: no process here has the writer's number."""
    ended = subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"], text=True)
    file = tmp_path / "a.lzc"
    command = [sys.executable, "-c", _OUT_OF_SIGHT, str(file), ended.strip()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        files.write_bytes(file, b"of this one")
        assert file.read_bytes() == b"of this one"
        writer.communicate("\n")
    assert writer.returncode == 0
    assert file.read_bytes() == b"of the other machine"
    assert os.listdir(tmp_path) == ["a.lzc"]


def test_threads_may_write_one_file_at_once(tmp_path):
    file = tmp_path / "a.lzc"
    with files.writing(file) as first:
        first.write_bytes(b"first")
        with files.writing(file) as second:
            second.write_bytes(b"second")
        assert file.read_bytes() == b"second"
    assert file.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.lzc"]
