"""Real data: CIFAR-10, an ImageNet sample, and Fashion-MNIST fetched as a Debian package."""

import shutil
import time

import numpy as np
import pytest

from lianzhi.errors import DataError
from lianzhi.tasks import task
from lianzhi.tasks.builtin import fashion_mnist as fashion
from lianzhi.tasks.readers import debian

pytestmark = pytest.mark.data


def quickest(function, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def test_cifar10(real_data):
    def load():
        return task("cifar10", data=real_data / "cifar10")

    made = load()
    assert {name: made.size(name) for name in made.splits} == {
        "train": 43_976, "validation": 5000, "calibration": 1024, "test": 10_000,
    }  # fmt: skip
    assert np.bincount(made.splits["validation"].labels).tolist() == [500] * 10
    rows = np.concatenate([made.splits[name].rows for name in ("train", "validation", "calibration")])
    assert sorted(rows.tolist()) == list(range(50_000))
    assert made.notes == ("CIFAR-10 (JPEG copy)",)
    seconds, again = quickest(load)
    assert seconds < 1.0
    assert again.fingerprint() == made.fingerprint()


def test_imagenet_sample(real_data):
    made = task("imagenet", data=real_data / "imagenet-sample", calibration=100)
    assert (made.size("test"), made.size("calibration"), made.num_classes) == (400, 100, 1000)
    assert made.labels[0] == "tench"
    batch = next(iter(made.batches("test", 8)))
    assert batch.inputs.shape == (8, 3, 224, 224)


def test_own_statistics_of_cifar10(real_data):
    made = task("parquet", data=real_data / "cifar10")
    np.testing.assert_allclose(made.preprocess.mean, (0.4914, 0.4822, 0.4465), atol=2e-3)
    np.testing.assert_allclose(made.preprocess.std, (0.247, 0.2435, 0.2616), atol=3e-3)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Fashion-MNIST as `apt-get download` and `dpkg-deb -x` give it."""
    if shutil.which("apt-get") is None:
        pytest.skip("not a Debian machine")
    target = tmp_path_factory.mktemp("apt") / "fashion_mnist"
    try:
        return debian.fetch(fashion.PACKAGE, str(fashion.INSTALLED), target)
    except DataError as error:
        pytest.skip(f"the package cannot be fetched here: {error}")


def test_fashion_mnist(package):
    made = task("fashion_mnist", data=package)
    assert {name: made.size(name) for name in made.splits} == {
        "train": 53_976, "validation": 5000, "calibration": 1024, "test": 10_000,
    }  # fmt: skip
    pixels = made.splits["train"].store.pixels / 255
    np.testing.assert_allclose((pixels.mean(), pixels.std()), (0.2860, 0.3530), atol=1e-4)
    assert [made.labels[label] for label in made.splits["test"].labels[:3]] == [
        "Ankle boot",
        "Pullover",
        "Trouser",
    ]


def test_an_epoch_of_fashion_mnist_is_quick(package):
    made = task("fashion_mnist", data=package, validation=0, calibration=0)

    def epoch():
        return sum(len(batch) for batch in made.batches("train", 128, epoch=1, augment=True))

    seconds, samples = quickest(epoch)
    assert samples == 60_000
    assert seconds < 1.5


def test_one_changed_byte_is_noticed(package, tmp_path):
    import gzip

    folder = tmp_path / "copy"
    shutil.copytree(package, folder)
    file = folder / "t10k-labels-idx1-ubyte.gz"
    data = bytearray(gzip.decompress(file.read_bytes()))
    data[1000] ^= 1
    file.write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz: wrong checksum"):
        task("fashion_mnist", data=folder)
