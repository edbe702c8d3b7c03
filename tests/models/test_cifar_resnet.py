"""Option A shortcuts, and the published weights on real images."""

from __future__ import annotations

import io

import pytest
import torch

from lianzhi import models
from lianzhi.models.cnn.cifar_resnet import ZeroPadShortcut


def test_a_shortcut_takes_every_other_pixel_and_pads_with_zeros():
    image = torch.arange(2 * 16.0).view(1, 2, 4, 4)
    out = ZeroPadShortcut(2, 5)(image)
    assert out.shape == (1, 5, 2, 2)
    assert out[0, 1].tolist() == [[0, 2], [8, 10]]
    assert out[0, 2].tolist() == [[16, 18], [24, 26]]
    assert not out[0, [0, 3, 4]].any()


def test_the_padding_is_an_attribute_that_is_read():
    shortcut = ZeroPadShortcut(2, 4)
    shortcut.padding = (0, 0, 0, 0, 0, 3)
    out = shortcut(torch.ones(1, 2, 2, 2))
    assert out[0, :, 0, 0].tolist() == [1, 1, 0, 0, 0]


def test_a_stage_of_equal_width_needs_no_padding():
    model = models.model("resnet20", widths=(8, 8, 8)).eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.data
@pytest.mark.parametrize("depth", [20, 56])
def test_published_weights_on_real_images(depth, real_data):
    """81 to 83 % of the whole JPEG copy; two deviations of 500 samples are 3.4 points."""
    model = models.model(
        f"resnet{depth}", weights=real_data / "cifar10" / f"resnet{depth}.safetensors"
    ).eval()
    images, labels = first_images(real_data / "cifar10" / "test.parquet", 500)
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in images.split(50)])
    assert 0.78 < (predicted == labels).double().mean().item() < 0.87


def first_images(path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    import numpy as np
    from PIL import Image
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        rows = next(file.iter_batches(batch_size=count)).to_pylist()
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB")) for row in rows]
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    return images, torch.tensor([row["label"] for row in rows])
