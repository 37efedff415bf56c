"""One form for all data: what is held out, what is shared, what is refused."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_tutorial import datasets
from unet_tutorial.datasets import SegmentationData, load


def make(number=4, **changes):
    rng = np.random.default_rng(0)
    fields = {
        "name": "some",
        "description": "some images",
        "images": tuple(rng.random((1, 6, 8), np.float32) for _ in range(number)),
        "labels": tuple(rng.integers(0, 2, (6, 8)).astype(np.uint8) for _ in range(number)),
        "class_names": ("cell", "membrane"),
        "validation_indices": (1, 3),
        "image_names": tuple("abcdefghij"[:number]),
        "instances": tuple(np.full((6, 8), index, np.int32) for index in range(number)),
        "mitochondria": tuple(np.zeros((6, 8), bool) for _ in range(number)),
    }
    return SegmentationData(**{**fields, **changes})


@pytest.fixture(scope="module")
def membranes():
    return load("membranes", n_images=4, size=96, seed=5)


def test_training_and_validation_share_the_images_out_between_them():
    data = make()
    assert data.training.image_names == ("a", "c")
    assert data.validation.image_names == ("b", "d")
    assert data.training.validation_indices == ()
    assert data.validation.validation_indices == (0, 1)


def test_a_subset_takes_everything_along_and_copies_nothing():
    data = make()
    part = data.subset([3, 0])
    assert len(part) == 2
    assert part.image_names == ("d", "a")
    assert part.validation_indices == (0,)
    for field in ("images", "labels", "instances", "mitochondria"):
        assert getattr(part, field)[0] is getattr(data, field)[3]
        assert getattr(part, field)[1] is getattr(data, field)[0]
    for field in ("name", "description", "class_names", "terms", "citation"):
        assert getattr(part, field) == getattr(data, field)


def test_a_subset_of_data_without_instances_has_none():
    part = make(instances=None, mitochondria=None).training
    assert part.instances is None
    assert part.mitochondria is None


@pytest.mark.parametrize("index", [-1, 4])
def test_a_subset_names_the_position_that_is_not_there(index):
    with pytest.raises(IndexError, match=f"has images 0 to 3, got {index}"):
        make().subset([index])


@given(st.lists(st.integers(0, 9), unique=True))
@settings(deadline=None)
def test_held_out_images_stay_held_out_in_any_subset(indices):
    data = make(10, validation_indices=(2, 3, 9))
    part = data.subset(indices)
    assert set(part.validation.image_names) == {"c", "d", "j"} & set(part.image_names)


def test_fractions_count_pixels_over_all_images_also_of_other_sizes():
    labels = (np.zeros((6, 8), np.uint8), np.ones((2, 8), np.int64))
    images = (np.zeros((3, 6, 8), np.float32), np.zeros((3, 2, 8), np.float32))
    data = SegmentationData("x", "x", images, labels, ("a", "b", "c"), (), ("0", "1"))
    assert data.class_fractions == (0.75, 0.25, 0)
    assert (data.in_channels, data.num_classes) == (3, 3)


def test_it_introduces_itself_in_one_short_line():
    assert repr(make()) == (
        "SegmentationData 'some': 4 images (2 held out), 1 channel, 6×8, classes cell, membrane"
    )
    assert "0 images (0 held out), 0 channels, no size" in repr(make().subset([]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ()}, "4 images but 0 labels"),
        ({"image_names": ("a",)}, "4 images but 1 image_names"),
        ({"instances": ()}, "4 images but 0 instances"),
        ({"images": (np.zeros((6, 8), np.float32),) * 4}, r"expected \(C, H, W\) float32"),
        ({"images": (np.zeros((1, 6, 8)),) * 4}, r"got \(1, 6, 8\) float64"),
        ({"labels": (np.zeros((8, 6), np.uint8),) * 4}, r"labels have shape \(8, 6\)"),
        ({"mitochondria": (np.zeros((1, 1), bool),) * 4}, r"mitochondria have shape \(1, 1\)"),
        (
            {"images": (*make().images[:3], np.zeros((3, 6, 8), np.float32))},
            "image d: expected 1 channels like the first image, got 3",
        ),
        ({"validation_indices": (4,)}, "different numbers from 0 to 3"),
        ({"validation_indices": (1, 1)}, "different numbers from 0 to 3"),
        ({"labels": (np.full((6, 8), 0.5),) * 4}, "labels are float64, expected integers"),
    ],
)
def test_what_does_not_agree_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        make(**changes)


def test_nobody_changes_it_behind_anybodys_back():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"


@pytest.mark.parametrize(
    ("number", "held_out"),
    [
        (2, (1,)),
        (3, (2,)),
        (4, (1, 3)),
        (6, (2, 5)),
        (12, (4, 5, 10, 11)),
        (30, (10, 11, 12, 13, 14, 25, 26, 27, 28, 29)),
    ],
)
def test_a_block_of_each_half_is_held_out(number, held_out):
    assert datasets._held_out(number) == held_out


@given(st.integers(2, 500))
@settings(deadline=None)
def test_about_a_third_is_held_out_and_more_is_trained_on(number):
    held_out = datasets._held_out(number)
    assert 1 <= len(held_out) <= number - len(held_out)
    assert abs(len(held_out) - number / 3) < 1.5
    assert sorted(set(held_out)) == list(held_out)
    assert held_out[-1] == number - 1


def test_synthetic_membranes_come_with_everything_that_is_known_of_them(membranes):
    assert membranes.name == "membranes"
    assert membranes.class_names == ("cell", "membrane")
    assert membranes.validation_indices == (1, 3)
    for index in range(4):
        image, label = membranes.images[index], membranes.labels[index]
        assert image.shape == (1, 96, 96)
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1
        assert set(np.unique(label)) == {0, 1}
        assert membranes.instances[index].dtype == np.int32
        assert membranes.mitochondria[index].dtype == bool
        assert not label[membranes.mitochondria[index]].any()


def test_one_line_says_what_was_taken(capsys):
    load("membranes", n_images=2, size=64, seed=7)
    assert capsys.readouterr().out == "membranes: 2 images of 64×64, generated from seed 7\n"


def test_an_image_is_the_same_however_many_there_are(membranes):
    fewer = load("membranes", n_images=2, size=96, seed=5)
    for index in range(2):
        assert np.array_equal(fewer.images[index], membranes.images[index])
        assert np.array_equal(fewer.labels[index], membranes.labels[index])


def test_another_seed_draws_other_images(membranes):
    other = load("membranes", n_images=2, size=96, seed=6)
    assert not np.array_equal(other.labels[0], membranes.labels[0])
    assert not np.array_equal(membranes.labels[0], membranes.labels[1])


def test_asking_for_the_synthetic_set_looks_for_no_other(monkeypatch):
    def looked(**_):
        raise AssertionError("looked for ISBI 2012")

    monkeypatch.setattr(datasets._isbi2012, "read_stack", looked)
    assert load("membranes", n_images=2, size=64).name == "membranes"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "isbi"}, "name must be 'auto', 'isbi2012' or 'membranes', got 'isbi'"),
        ({"n_images": 1}, "n_images must be a whole number from 2, got 1"),
        ({"size": 31}, "size must be a whole number from 32, got 31"),
        ({"size": 64.5}, "size must be a whole number from 32, got 64.5"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(options, said):
    with pytest.raises(ValueError, match=said):
        load(**{"name": "membranes", **options})


def test_the_module_needs_no_torch():
    code = (
        "import sys, types; package = types.ModuleType('unet_tutorial');"
        f"package.__path__ = [{str(Path(datasets.__file__).parent)!r}];"
        "sys.modules['unet_tutorial'] = package;"
        "import unet_tutorial.datasets; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
