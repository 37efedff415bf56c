"""The synthetic micrographs: exact, repeatable, varied, and not solved by a threshold."""

import hashlib
import time
from itertools import pairwise

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
    assert digest.hexdigest() == "c2959f16dd3fb6a720a20e4d698d13d54b7e7a7725ec86ed669f057ad71346a9"


def test_a_seed_draws_the_same_image_within_one_gray_level():
    gray = np.round(generate(0, seed=0, size=256).image * 255).astype(int)
    stored = np.array(
        [
            [68, 99, 35, 95, 46, 117, 180, 119],
            [133, 166, 82, 104, 41, 158, 24, 90],
            [37, 65, 180, 171, 116, 74, 155, 98],
            [59, 51, 169, 60, 82, 67, 30, 95],
            [167, 185, 159, 78, 79, 123, 96, 45],
            [123, 112, 141, 152, 95, 28, 118, 68],
            [140, 171, 174, 189, 167, 137, 44, 96],
            [94, 135, 114, 127, 81, 59, 39, 158],
        ]
    )
    assert np.abs(gray[::32, ::32] - stored).max() <= 1


def test_each_image_is_drawn_by_itself():
    assert not np.array_equal(generate(0, size=64).image, generate(1, size=64).image)
    assert not np.array_equal(generate(0, seed=1, size=64).image, generate(0, size=64).image)


@pytest.mark.parametrize("size", [32, 64, 100, 512, 1024])
def test_other_sizes_work(size):
    picture = generate(3, size=size)
    assert picture.label.shape == (size, size)
    assert 0.05 < picture.label.mean() < 0.6


def test_every_small_picture_has_membranes_and_cells():
    """Smoke tests use small pictures; a class that is missing would make them say nothing."""
    for index in range(30):
        picture = generate(index, size=64)
        assert set(np.unique(picture.label)) == {0, 1}


@pytest.mark.parametrize(
    ("index", "options"), [(-1, {}), (0, {"seed": -1}), (0, {"size": 31}), (0, {"size": 0})]
)
def test_impossible_requests_are_refused_by_name(index, options):
    with pytest.raises(ValueError, match="size at least 32 pixels, but index="):
        generate(index, **options)


def test_statistics_are_near_those_of_the_real_stack():
    """ISBI 2012, over its slices: 22 % membrane, gray 126, spread 43, membranes 52 darker."""
    full = [generate(index) for index in range(8)]
    for picture in full:
        assert 0.16 < picture.label.mean() < 0.28
    gray = [255 * picture.image for picture in full]
    assert abs(np.mean(gray) - 126) < 10
    assert abs(np.mean([g.std() for g in gray]) - 43) < 4
    steps = [
        g[p.label == 0].mean() - g[p.label == 1].mean() for g, p in zip(gray, full, strict=True)
    ]
    assert abs(np.mean(steps) - 52) < 8


def test_the_power_spectrum_is_near_that_of_the_real_stack():
    """Detail of every size is as strong as in ISBI 2012, within a fifth of a power of ten."""
    real = np.array([6.83, 6.38, 5.94, 5.39, 4.82, 4.45, 3.99, 3.21])  # mean over the 30 slices
    drawn = np.mean([_log_power(generate(index).image) for index in range(8)], axis=0)
    assert np.abs(drawn - real).max() < 0.2


def _log_power(image):
    """Mean power of the standardized image in bands of frequency, cycles per 512 pixels."""
    window = np.hanning(512)
    standardized = (image - image.mean()) / image.std() * window[:, None] * window
    power = np.abs(np.fft.fftshift(np.fft.fft2(standardized))) ** 2
    frequency = np.hypot(*(np.indices(image.shape) - 256)).astype(int)
    by_frequency = np.bincount(frequency.flat, power.flat) / np.bincount(frequency.flat)
    edges = [4, 8, 16, 32, 64, 96, 128, 180, 256]
    return np.log10([by_frequency[a:b].mean() for a, b in pairwise(edges)])


def test_a_threshold_does_not_solve_it(pictures):
    darkness = [ndimage.gaussian_filter(1 - p.image, 1.5) for p in pictures]
    best = evaluate(
        [np.clip(d, 0, 1) for d in darkness],
        [p.label for p in pictures],
        thresholds=np.linspace(0.3, 0.7, 9).tolist(),
    )
    assert best.v_rand < 0.85
    assert best.pixel_error > 0.15  # a U-Net reaches 0.05


def test_an_image_takes_a_fraction_of_a_second():
    started = time.process_time()
    generate(0)
    assert time.process_time() - started < 2  # a tenth of that on the machine of the book
