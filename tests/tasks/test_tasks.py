"""Every task with a name, what a task says of itself, and the cache."""

import importlib
import pkgutil
import random
import subprocess
import sys

import numpy as np
import pytest

import lianzhi.tasks
from lianzhi.errors import DataError
from lianzhi.tasks import cache, registry, task
from lianzhi.tasks.readers import debian, hf_datasets, hub


def test_names():
    assert registry.names() == [
        "cifar10",
        "cifar100",
        "cola",
        "corpus",
        "fashion_mnist",
        "image_folder",
        "imagenet",
        "mnist",
        "mnli",
        "mrpc",
        "npz",
        "oneflow_json",
        "parquet",
        "qnli",
        "qqp",
        "rte",
        "snli",
        "sst2",
        "stsb",
        "svhn",
        "synthetic",
        "text",
        "wnli",
        "xnli",
    ]


@pytest.mark.parametrize("name", registry.names())
def test_every_task_has_options_with_defaults(name):
    entry = registry.get(name)
    options = entry.config()
    assert entry.summary
    assert {"limit", "validation", "calibration", "split_seed"} <= set(options.to_dict())
    assert entry.config(**options.to_dict()) == options


@pytest.mark.parametrize("name", sorted(set(registry.names()) - {"synthetic", "fashion_mnist"}))
def test_every_task_says_what_it_needs(name, monkeypatch):
    def fetch(*_):
        raise DataError("no network")

    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.setattr(hf_datasets, "read", fetch)
    with pytest.raises(DataError, match=rf"task '{name}': .*give data: a"):
        task(name)


@pytest.mark.parametrize("name", sorted(set(registry.names()) - {"synthetic"}))
def test_every_task_refuses_what_is_not_there(name, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*no such"):
        task(name, data=tmp_path / "nowhere")


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 9), (7,), (4, 6)])
def test_synthetic(shape):
    made = task("synthetic", samples=128, classes=4, shape=shape)
    assert {name: made.size(name) for name in made.splits} == {
        "train": 96,
        "validation": 16,
        "calibration": 16,
        "test": 32,
    }
    assert made.example_inputs.shape == (1, *shape)
    assert made.fingerprint() == task("synthetic", samples=128, classes=4, shape=shape).fingerprint()
    assert (
        made.fingerprint()
        != task("synthetic", samples=128, classes=4, shape=shape, data_seed=1).fingerprint()
    )


def test_synthetic_can_be_learned():
    """The nearest class mean of the training part gets nearly all of the test part right."""
    made = task("synthetic", samples=512, classes=4, shape=(3, 8, 8))
    train, test = (next(iter(made.batches(name, 999))) for name in ("train", "test"))
    means = np.stack([train.inputs[train.labels == number].mean(0).numpy() for number in range(4)])
    distances = ((test.inputs.numpy()[:, None] - means) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == test.labels.numpy()).mean() > 0.95


def test_synthetic_takes_no_data(tmp_path):
    with pytest.raises(DataError, match="makes its own data"):
        task("synthetic", data=tmp_path)


def test_no_split_of_a_part_that_is_not_wanted():
    made = task("synthetic", samples=64, validation=0, calibration=0)
    assert list(made.splits) == ["train", "test"]
    assert not made.has("validation")


def test_description_and_repr():
    made = task("synthetic", samples=64, classes=6)
    assert made.description() == {
        "name": "synthetic",
        "source": "made up",
        "splits": {"train": 48, "validation": 8, "calibration": 8, "test": 16},
        "num_classes": 6,
        "metric": "top1",
        "reported": "test",
        "notes": ["made-up data: accuracies mean nothing outside this machine"],
    }
    assert repr(made) == "Task('synthetic': 48 train, 8 validation, 8 calibration, 16 test, 6 classes)"


def test_submodules_in_any_order_leave_the_promised_names():
    names = [module.name for module in pkgutil.walk_packages(lianzhi.tasks.__path__, "lianzhi.tasks.")]
    random.Random(0).shuffle(names)
    for name in names:
        importlib.import_module(name)
    assert callable(lianzhi.tasks.task)
    assert lianzhi.tasks.registry is registry


def test_import_is_lean():
    code = (
        "import sys, lianzhi.tasks\n"
        "heavy = {'pyarrow', 'PIL', 'scipy', 'datasets', 'pandas', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestCache:
    def test_its_place(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LIANZHI_CACHE", str(tmp_path / "own"))
        assert cache.folder() == tmp_path / "own"
        monkeypatch.delenv("LIANZHI_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache.folder() == tmp_path / "lianzhi"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache.folder() == tmp_path / ".cache" / "lianzhi"

    def test_an_array_is_made_once(self):
        calls = []

        def make():
            calls.append(1)
            return np.arange(5)

        assert cache.array("key", make).tolist() == cache.array("key", make).tolist() == [0, 1, 2, 3, 4]
        assert len(calls) == 1

    def test_a_write_that_fails_leaves_nothing(self, tmp_path):
        def fill(stream):
            stream.write(b"half")
            raise OSError(28, "No space left on device")

        (tmp_path / "file").write_bytes(b"before")
        with pytest.raises(OSError, match="No space"):
            cache.write(tmp_path / "file", fill)
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == b"before"

    def test_digests_follow_contents_of_large_files_at_both_ends(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cache, "WHOLE", 10)
        monkeypatch.setattr(cache, "ENDS", 4)
        file = tmp_path / "file"
        found = set()
        for content in (b"a" * 20, b"b" + b"a" * 19, b"a" * 19 + b"b", b"a" * 21):
            file.write_bytes(content)
            found.add(cache.digest_files([file]))
        assert len(found) == 4


class TestDebian:
    def test_no_apt(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DataError, match="apt-get and dpkg-deb not found: not a Debian machine"):
            debian.fetch("package", "/usr/share", tmp_path / "target")
        (tmp_path / "empty").mkdir()  # nothing was unpacked into it
        with pytest.raises(DataError, match="not a Debian machine"):
            debian.fetch("package", "/usr/share", tmp_path / "empty")

    def test_apt_fails(self, monkeypatch, tmp_path):
        for tool in ("apt-get", "dpkg-deb"):
            (tmp_path / tool).write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
            (tmp_path / tool).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        with pytest.raises(DataError, match="update failed: E: Unable to locate package"):
            debian.fetch("package", "/usr/share", tmp_path / "cache" / "target")
        assert list((tmp_path / "cache").iterdir()) == []
