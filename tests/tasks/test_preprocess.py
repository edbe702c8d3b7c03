"""From an image to the model's input."""

import numpy as np
import pytest
import torch
from PIL import Image

from lianzhi.errors import DataError
from lianzhi.tasks import Preprocess

COLOUR = Preprocess((8, 6), 3, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))


def test_equals_the_formula():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    expected = (image / 255 - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    for given in (image, Image.fromarray(image)):
        found = COLOUR(given)
        assert found.dtype == np.float32
        assert found.shape == (1, 3, 8, 6)
        np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, rtol=1e-6, atol=1e-6)


def test_training_and_prediction_give_the_same_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 6), dtype=np.uint8)
    together = COLOUR.normalize(pixels)
    alone = [COLOUR(np.ascontiguousarray(image.transpose(1, 2, 0)))[0] for image in pixels]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_colours(mode, channels):
    image = Image.new("RGB", (6, 8), (200, 100, 50)).convert(mode)
    plain = Preprocess((8, 6), channels, (0.0,) * channels, (1.0,) * channels)
    assert plain(image).shape == (1, channels, 8, 6)


def test_resize_and_centre_crop():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 30:50] = 255
    found = Preprocess((20, 20), 3, (0.0,) * 3, (1.0,) * 3, resize=20, crop=(20, 20))(picture)
    assert found.shape == (1, 3, 20, 20)
    assert found[0, :, :, 8:12].min() == 1.0
    assert found[0, :, :, :3].max() == 0.0


def test_another_size_is_scaled():
    assert COLOUR(np.zeros((100, 33, 3), np.uint8)).shape == (1, 3, 8, 6)
    assert COLOUR(np.zeros((100, 33), np.uint8)).shape == (1, 3, 8, 6)


def test_json_round_trip():
    import json

    full = Preprocess((224, 200), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), resize=256, crop=(224, 200))
    for one in (COLOUR, full):
        assert Preprocess.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs size"),
        ([], "not a description"),
        ({**COLOUR.to_dict(), "size": 3}, "not a description"),
        ({**COLOUR.to_dict(), "size": [1, 2, 3]}, "not a description"),
        ({**COLOUR.to_dict(), "code": "x"}, "unknown code"),
        ({**COLOUR.to_dict(), "mean": [0.5]}, "'mean' has 1 values and the images have 3"),
        ({**COLOUR.to_dict(), "std": [0.5, 0.0, 1.0]}, "above 0"),
        ({**COLOUR.to_dict(), "std": [0.5, float("nan"), 1.0]}, "finite"),
    ],
)
def test_refuses_a_wrong_description(values, message):
    with pytest.raises(DataError, match=message):
        Preprocess.from_dict(values)


def test_refuses_a_wrong_array():
    with pytest.raises(DataError, match=r"float32 of shape \(3, 8, 6\)"):
        COLOUR(torch.zeros(3, 8, 6).numpy())
