"""The synthetic micrographs: exact, repeatable, varied, and not solved by a threshold."""

import hashlib
import time

import numpy as np
import pytest
from scipy import ndimage

from unet_tutorial._membranes import generate
from unet_tutorial.metrics import cell_segments, evaluate


@pytest.fixture(scope="module")
def pictures():
    return [generate(index, size=256) for index in range(6)]


def test_the_types_and_ranges_are_as_promised(pictures):
    for picture in pictures:
        assert picture.image.shape == (256, 256)
        assert picture.image.dtype == np.float32
        assert np.array_equal(np.round(picture.image * 255) / np.float32(255), picture.image)
        assert set(np.unique(picture.label)) == {0, 1}
        assert picture.instances.dtype == np.int32
        assert picture.mitochondria.dtype == bool


def test_label_and_cells_say_the_same(pictures):
    for picture in pictures:
        assert np.array_equal(picture.label == 1, picture.instances == 0)
        numbers = np.unique(picture.instances)
        assert np.array_equal(numbers, np.arange(len(numbers)))
        components, count = ndimage.label(picture.instances > 0)
        assert count == len(numbers) - 1  # every cell is one piece, and touches no other
        again = cell_segments(picture.label == 1, grow=False)
        assert len(np.unique(again)) == len(numbers)
        assert components.max() == count


def test_mitochondria_lie_in_cells_with_their_rims(pictures):
    assert sum(picture.mitochondria.sum() for picture in pictures) > 0
    for picture in pictures:
        assert not picture.label[picture.mitochondria].any()


def test_rims_of_mitochondria_are_as_dark_as_membranes():
    """So that gray alone cannot tell them apart: context is needed."""
    rims, membranes = [], []
    for index in range(4):
        picture = generate(index)
        rim = picture.mitochondria & ~ndimage.binary_erosion(picture.mitochondria, iterations=2)
        rims.append(picture.image[rim])
        membranes.append(picture.image[picture.label == 1])
    assert abs(np.median(np.concatenate(rims)) - np.median(np.concatenate(membranes))) < 0.1


def test_a_seed_draws_the_same_labels_everywhere():
    digest = hashlib.sha256()
    for index in range(3):
        picture = generate(index, seed=0, size=256)
        for array in (picture.label, picture.instances, picture.mitochondria):
            digest.update(np.ascontiguousarray(array).astype("<i4").tobytes())
    assert digest.hexdigest() == "c3cf96d85072d965398e3d461aafee7a8dd72af5f2da0d9ec42ca1870a204fcf"


def test_a_seed_draws_the_same_image_within_one_gray_level():
    gray = np.round(generate(0, seed=0, size=256).image * 255).astype(int)
    stored = np.array(
        [
            [148, 69, 85, 142, 230, 90, 124, 72],
            [133, 143, 134, 93, 152, 152, 151, 169],
            [142, 89, 132, 204, 98, 85, 153, 156],
            [156, 181, 120, 144, 151, 33, 169, 93],
            [113, 135, 196, 141, 108, 203, 88, 139],
            [138, 168, 111, 147, 142, 100, 69, 115],
            [133, 74, 144, 139, 127, 116, 90, 98],
            [155, 144, 122, 140, 127, 146, 116, 141],
        ]
    )
    assert np.abs(gray[::32, ::32] - stored).max() <= 1


def test_each_image_is_drawn_by_itself():
    assert not np.array_equal(generate(0, size=64).image, generate(1, size=64).image)
    assert not np.array_equal(generate(0, seed=1, size=64).image, generate(0, size=64).image)


@pytest.mark.parametrize("size", [32, 64, 100, 512])
def test_other_sizes_work(size):
    picture = generate(3, size=size)
    assert picture.label.shape == (size, size)


def test_statistics_are_near_those_of_the_real_stack():
    """ISBI 2012: 17 to 27 % membrane, gray mean 126 to 147 and spread 38 to 52 by slice."""
    full = [generate(index) for index in range(6)]
    membrane = np.mean([picture.label.mean() for picture in full])
    assert 0.17 < membrane < 0.27
    gray = np.stack([picture.image for picture in full]) * 255
    assert 120 < gray.mean() < 160
    assert 34 < gray.std() < 55


def test_a_threshold_does_not_solve_it(pictures):
    darkness = [ndimage.gaussian_filter(1 - p.image, 1.5) for p in pictures]
    best = evaluate(
        [np.clip(d, 0, 1) for d in darkness],
        [p.label for p in pictures],
        thresholds=np.linspace(0.3, 0.7, 9).tolist(),
    )
    assert best.v_rand < 0.8


def test_thirty_images_take_seconds():
    started = time.process_time()
    generate(0)
    assert time.process_time() - started < 2  # a tenth of that on the machine of the book
