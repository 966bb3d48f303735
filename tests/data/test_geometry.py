import numpy as np
import pytest
from PIL import Image

from jataug.data import Geometry, prepare
from jataug.errors import DataError

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)


def test_nothing_asked_nothing_changed():
    np.testing.assert_array_equal(Geometry().apply(IMAGE, "x"), IMAGE)


@pytest.mark.parametrize(("shape", "size"), [((30, 41), (20, 27)), ((41, 30), (27, 20))])
def test_resize_sets_the_shorter_side_and_keeps_the_proportions(shape, size):
    image = np.resize(IMAGE, (*shape, 3))
    resized = Geometry(resize=20).apply(image, "x")
    reference = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.array(reference))


def test_resize_keeps_grey_grey():
    assert Geometry(resize=15).apply(IMAGE[:, :, :1], "x").shape == (15, 20, 1)


def test_crop_cuts_out_the_centre():
    np.testing.assert_array_equal(Geometry(crop=10).apply(IMAGE, "x"), IMAGE[10:20, 16:26])
    assert Geometry(crop=10) == Geometry(crop=(10, 10))
    np.testing.assert_array_equal(Geometry(crop=(30, 1)).apply(IMAGE, "x"), IMAGE[:, 20:21])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(
        DataError, match=r"p/a\.png: expected at least 31x31 pixels to crop, got 30x41"
    ):
        Geometry(crop=31).apply(IMAGE, "p/a.png")


@pytest.mark.parametrize("value", [0, -3, 2.5, True, "7"])
@pytest.mark.parametrize("name", ["resize", "crop"])
def test_sizes_that_are_no_sizes_are_refused(name, value):
    with pytest.raises(DataError, match=f"{name}: expected an integer >= 1"):
        Geometry(**{name: value})


def test_a_crop_of_three_sizes_is_refused():
    with pytest.raises(DataError, match="one size or"):
        Geometry(crop=(1, 2, 3))


def test_grey_becomes_rgb_where_the_model_wants_it():
    image = prepare(IMAGE[:, :, :1], Geometry(), (3, 30, 41), "x")
    np.testing.assert_array_equal(image, np.repeat(IMAGE[:, :, :1], 3, axis=2))


def test_rgb_does_not_become_grey_silently():
    with pytest.raises(
        DataError, match=r"a\.png: expected 1 channel\(s\), got 3; convert it to grey"
    ):
        prepare(IMAGE, Geometry(), (1, 30, 41), "a.png")


def test_another_size_is_refused_with_advice():
    with pytest.raises(DataError, match=r"got 30x41; use --resize 256 --crop 224$"):
        prepare(IMAGE, Geometry(), (3, 224, 224), "a.png")
    with pytest.raises(DataError, match=r"--crop 20,30$"):
        prepare(IMAGE, Geometry(), (3, 20, 30), "a.png")


def test_a_resize_beyond_reason_is_refused():
    image = np.zeros((8, 16, 3), np.uint8)
    with pytest.raises(DataError, match=r"a\.png: resize: expected at most [0-9]+ pixels"):
        Geometry(10_000).apply(image, "a.png")
    with pytest.raises(DataError, match=r"^resize: expected at most [0-9]+"):
        Geometry(10**23)
