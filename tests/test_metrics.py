"""The scores: worked by hand, against scikit-image, and by what must never change them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import shannon_entropy
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import watershed

from unet_tutorial.metrics import (
    Scores,
    _cell_scores,
    cell_segments,
    dice,
    error_by_distance,
    evaluate,
    iou,
    pixel_error,
    v_info,
    v_rand,
)

Mask = NDArray[np.bool_]

settings.register_profile("metrics", deadline=None, max_examples=100)
calm = settings(settings.get_profile("metrics"))


@st.composite
def mask_pairs(draw: st.DrawFn, max_side: int = 12) -> tuple[Mask, Mask]:
    """Two random masks (H, W) of equal shape."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=max_side))
    masks = hnp.arrays(bool, shape)
    return draw(masks), draw(masks)


def mosaic(seed: int, size: int = 64, cells: int = 9, thickness: int = 1) -> Mask:
    """Draw membranes between the Voronoi cells of random points; (size, size)."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros((size, size), dtype=int)
    seeds.flat[rng.choice(size * size, cells, replace=False)] = np.arange(1, cells + 1)
    nearest = ndimage.distance_transform_edt(
        seeds == 0, return_distances=False, return_indices=True
    )
    label = seeds[tuple(nearest)]
    # Comparing with the neighbors above and to the left draws lines without diagonal leaks.
    edge = np.zeros((size, size), dtype=bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:, 1:] |= label[1:, 1:] != label[:-1, :-1]
    return ndimage.binary_dilation(edge, iterations=thickness - 1) if thickness > 1 else edge


def strip(text: str) -> Mask:
    """Read a drawing: ``#`` is membrane, anything else is cell."""
    return np.array([[character == "#" for character in line] for line in text.split()])


# --- Dice, IoU, pixel error -----------------------------------------------------------------------


def test_pixel_scores_worked_by_hand() -> None:
    prediction, target = np.array([[1, 1, 1, 0, 0]]), np.array([[0, 1, 1, 1, 0]])
    assert dice(prediction, target) == pytest.approx(2 * 2 / (3 + 3))
    assert iou(prediction, target) == pytest.approx(2 / 4)
    assert pixel_error(prediction, target) == pytest.approx(2 / 5)


def test_scores_are_plain_floats_that_json_can_store() -> None:
    a, b = strip("..#.. ..#.."), strip(".##.. ..#..")
    scores = [score(a, b) for score in (dice, iou, pixel_error, v_rand, v_info)]
    scores += evaluate(a.astype(float), b).as_dict().values()
    assert {type(score) for score in scores} == {float}
    assert json.loads(json.dumps(scores)) == scores


@pytest.mark.parametrize("score", [dice, iou])
def test_nothing_against_nothing_is_perfect_and_something_against_nothing_is_zero(
    score: Callable[..., float],
) -> None:
    empty, one = np.zeros((3, 3), dtype=bool), np.eye(3, dtype=bool)
    assert score(empty, empty) == 1.0
    assert score(one, empty) == 0.0
    assert score(empty, one) == 0.0


def test_a_stack_is_pooled_not_averaged() -> None:
    target = np.array([[[1, 1, 1, 1]], [[1, 0, 0, 0]]])
    prediction = np.array([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])
    mean_of_slices = np.mean([dice(p, t) for p, t in zip(prediction, target, strict=True)])
    assert mean_of_slices == 0.5
    assert dice(prediction, target) == pytest.approx(2 * 4 / (4 + 5))
    assert iou(prediction, target) == pytest.approx(4 / 5)


def test_pixel_error_counts_any_class_that_differs() -> None:
    assert pixel_error([0, 1, 2, 3], [0, 2, 1, 3]) == 0.5
    assert pixel_error([True, False], [1, 0]) == 0.0


@calm
@given(mask_pairs())
def test_dice_and_iou_are_one_score_in_two_dresses(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    assert 0 <= iou(a, b) <= dice(a, b) <= 1
    assert dice(a, b) == pytest.approx(2 * iou(a, b) / (1 + iou(a, b)))
    assert dice(a, b) == dice(b, a)
    assert iou(a, b) == iou(b, a)
    assert dice(a, a) == iou(a, a) == 1


@calm
@given(mask_pairs())
def test_pixel_scores_do_not_care_where_the_pixels_are(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    order = np.random.default_rng(0).permutation(a.size)
    for score in (dice, iou, pixel_error):
        assert score(a.ravel()[order], b.ravel()[order]) == score(a, b)
        assert score(a.T, b.T) == score(a[::-1], b[::-1]) == score(a, b)


@calm
@given(mask_pairs())
def test_swapping_the_classes_changes_dice_but_not_pixel_error(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    assert pixel_error(~a, ~b) == pixel_error(a, b)
    assert pixel_error(~a, b) == pytest.approx(1 - pixel_error(a, b))


# --- refused input --------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [dice, iou, pixel_error, v_rand, v_info, error_by_distance])
def test_different_shapes_are_refused_with_both_shapes(score: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(5, 4\)"):
        score(np.zeros((4, 5), dtype=int), np.zeros((5, 4), dtype=int))


@pytest.mark.parametrize("score", [dice, iou, v_rand, v_info])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (np.array([[0, 255]], dtype=np.uint8), "the values 0, 255"),
        (np.array([[0.2, 0.7]]), "the values 0.2, 0.7"),
        (np.array([[0.0, np.nan]]), "nan"),
        (np.arange(9).reshape(3, 3), "9 distinct values from 0 to 8"),
    ],
)
def test_what_is_no_mask_is_refused_with_its_values(
    score: Callable[..., float], wrong: NDArray[Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        score(wrong, np.zeros(wrong.shape, dtype=bool))
    with pytest.raises(ValueError, match=told):
        score(np.zeros(wrong.shape, dtype=bool), wrong)


@pytest.mark.parametrize("wrong", [[0, 255], [-1, 0], [0.5, 1.0], [np.nan, 1.0]])
def test_what_is_no_class_index_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="class indices"):
        pixel_error(wrong, [0, 1])
    with pytest.raises(ValueError, match="target must hold class indices"):
        pixel_error([0, 1], wrong)


def test_no_pixel_no_number_and_wrong_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="no pixel"):
        dice(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="must hold numbers"):
        dice(["membrane"], ["cell"])
    with pytest.raises(ValueError, match=r"got shape \(7,\)"):
        v_rand(np.zeros(7), np.zeros(7))
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 3\)"):
        cell_segments(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="got 2 and 3"):
        v_rand(np.zeros((2, 4, 4)), np.zeros((3, 4, 4)))


# --- cells ----------------------------------------------------------------------------------------


def test_cells_that_touch_only_at_a_corner_are_two() -> None:
    assert cell_segments(strip(".# #."), grow=False).max() == 2


def test_a_mask_without_cells_is_one_segment_when_grown_and_none_otherwise() -> None:
    blank = np.ones((4, 6), dtype=bool)
    assert np.all(cell_segments(blank) == 1)
    assert np.all(cell_segments(blank, grow=False) == 0)
    assert np.all(cell_segments(~blank) == 1)


@calm
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_growing_gives_each_membrane_pixel_to_a_nearest_cell(membrane: Mask) -> None:
    cells, grown = cell_segments(membrane, grow=False), cell_segments(membrane)
    assert np.array_equal(cells == 0, membrane)
    assert grown.min() >= 1
    if membrane.all():
        return
    assert np.array_equal(grown[~membrane], cells[~membrane])
    nearest = ndimage.distance_transform_cdt(membrane, metric="taxicab")
    for number in range(1, cells.max() + 1):
        to_this_cell = ndimage.distance_transform_cdt(cells != number, metric="taxicab")
        assert np.array_equal(to_this_cell[grown == number], nearest[grown == number])


# --- V_Rand and V_Info ----------------------------------------------------------------------------


def test_two_merged_cells_worked_by_hand() -> None:
    # cells of 2, 3 and 5 pixels; the proposal opens the membrane between the first two
    target, proposal = strip("..#...#....."), strip("......#.....")
    joint = np.array([0.2, 0.3, 0.5])
    merged = np.array([0.5, 0.5])
    assert v_rand(proposal, target) == pytest.approx(0.38 / (0.5 * 0.5 + 0.5 * 0.38))
    entropy_target = -np.sum(joint * np.log(joint))
    entropy_merged = -np.sum(merged * np.log(merged))
    # what the proposal says follows from the target, so all of its entropy is shared
    expected = 2 * entropy_merged / (entropy_merged + entropy_target)
    assert v_info(proposal, target) == pytest.approx(expected)


def test_a_split_cell_worked_by_hand() -> None:
    # the membrane pixel in the middle goes to one of the halves: 4 + 3 of 7 pixels
    target, proposal = strip("......."), strip("...#...")
    assert v_rand(proposal, target) == pytest.approx(25 / 49 / (0.5 * 25 / 49 + 0.5))
    assert v_info(proposal, target) == 0.0


def test_only_pixels_that_are_cell_in_the_target_count() -> None:
    target = strip("...####...")
    for proposal in ("...#......", "......#...", "...####...", "...#..#..."):
        # the speck between two lines lies in the target's membrane, where nobody looks
        assert v_rand(strip(proposal), target) == v_info(strip(proposal), target) == 1.0


def test_degenerate_slices_are_defined() -> None:
    cell, membrane = np.zeros((6, 6), dtype=bool), np.ones((6, 6), dtype=bool)
    two = strip("..#... ..#... ..#... ..#... ..#... ..#...")
    # one segment on both sides: nothing to tell apart, and nothing told apart
    assert v_rand(cell, cell) == v_info(cell, cell) == 1.0
    # a blank proposal is one segment whichever color it has
    assert v_rand(cell, two) == v_rand(membrane, two) == pytest.approx(0.52 / (0.5 + 0.5 * 0.52))
    assert v_info(cell, two) == v_info(membrane, two) == 0.0
    # no pixel is judged
    assert v_rand(two, membrane) == v_info(two, membrane) == 1.0


def test_a_stack_is_averaged_and_may_hold_slices_of_any_size() -> None:
    target = [mosaic(0), mosaic(1), mosaic(2, size=40)]
    proposal = [np.roll(mosaic(3), 5), mosaic(1), np.zeros((40, 40), dtype=bool)]
    for score in (v_rand, v_info):
        single = [score(p, t) for p, t in zip(proposal, target, strict=True)]
        assert len(set(single)) == 3
        assert score(proposal, target) == pytest.approx(np.mean(single))
        assert score(np.stack(proposal[:2]), np.stack(target[:2])) == pytest.approx(
            np.mean(single[:2])
        )


@calm
@given(mask_pairs())
def test_cell_scores_stay_in_range_and_are_one_for_equal_masks(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    for score in (v_rand, v_info):
        assert 0 <= score(a, b) <= 1
        assert score(a, a) == pytest.approx(1, abs=1e-12)


@calm
@given(mask_pairs(), st.integers(0, 2**32 - 1))
def test_renumbering_the_cells_changes_nothing(pair: tuple[Mask, Mask], seed: int) -> None:
    rng = np.random.default_rng(seed)
    proposal, target = cell_segments(pair[0]), cell_segments(pair[1], grow=False)

    def renumber(labels: NDArray[np.int32]) -> NDArray[np.int32]:
        new = np.concatenate([[0], 1 + rng.permutation(labels.max() + 5)])
        return new[labels].astype(np.int32)

    assert _cell_scores(renumber(proposal), renumber(target)) == pytest.approx(
        _cell_scores(proposal, target)
    )


@calm
@given(mask_pairs())
def test_turning_and_flipping_changes_nothing_when_membranes_are_only_missing(
    pair: tuple[Mask, Mask],
) -> None:
    # Without invented membrane no judged pixel has to be given to one of two equally near cells.
    target, proposal = pair[1], pair[0] & pair[1]
    for score in (v_rand, v_info):
        expected = score(proposal, target)
        for turned in (np.transpose, np.flipud, np.fliplr, np.rot90):
            assert score(turned(proposal), turned(target)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_turning_and_flipping_moves_ties_only(seed: int) -> None:
    target, proposal = mosaic(seed), mosaic(seed, thickness=3)
    for score in (v_rand, v_info):
        expected = score(proposal, target)
        for turned in (np.transpose, np.flipud, np.fliplr, np.rot90):
            assert score(turned(proposal), turned(target)) == pytest.approx(expected, abs=0.005)


def test_a_gap_of_three_pixels_hardly_moves_pixel_error_and_ruins_v_rand() -> None:
    target = np.zeros((64, 64), dtype=bool)
    target[:, 32] = True
    leaky = target.copy()
    leaky[30:33, 32] = False
    assert pixel_error(leaky, target) == 3 / 64**2
    assert dice(leaky, target) > 0.97
    assert v_rand(leaky, target) < 0.67


@pytest.mark.parametrize("seed", range(3))
def test_thick_membranes_hurt_the_pixels_but_not_the_cells(seed: int) -> None:
    target, thick = mosaic(seed, size=128), mosaic(seed, size=128, thickness=3)
    assert dice(thick, target) < 0.5
    assert v_rand(thick, target) > 0.99


# --- against scikit-image -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_v_rand_agrees_with_scikit_image_once_the_cells_are_grown(seed: int) -> None:
    target, proposal = mosaic(seed), mosaic(seed, cells=7, thickness=2)
    cells = cell_segments(target, grow=False)
    # scikit-image counts pairs of different pixels, n (n - 1), where the challenge has n²
    error, _, _ = adapted_rand_error(cells, cell_segments(proposal))
    assert v_rand(proposal, target) == pytest.approx(1 - error, abs=5e-4)
    assert v_rand(proposal, target) < 0.999


@pytest.mark.parametrize("seed", range(5))
def test_v_info_agrees_with_scikit_image(seed: int) -> None:
    target, proposal = mosaic(seed), mosaic(seed, cells=7, thickness=2)
    cells, segments = cell_segments(target, grow=False), cell_segments(proposal)
    counted = cells > 0
    entropies = shannon_entropy(cells[counted]) + shannon_entropy(segments[counted])
    variation = sum(variation_of_information(cells, segments, ignore_labels=[0]))
    assert v_info(proposal, target) == pytest.approx(1 - variation / entropies, abs=1e-9)
    assert v_info(proposal, target) < 0.999


@pytest.fixture(scope="module")
def isbi_slice_0() -> Mask:
    """Cell interior of the first ISBI 2012 label, (512, 512)."""
    root = os.environ.get("UNET_TUTORIAL_DATA")
    path = Path(root or "") / "isbi2012" / "train" / "label" / "0.png"
    if not root or not path.is_file():
        pytest.skip("UNET_TUTORIAL_DATA holds no ISBI 2012 labels")
    from skimage.io import imread

    return imread(path) > 0


def test_membranes_two_pixels_too_thick_on_isbi_score_as_in_the_reference(
    isbi_slice_0: Mask,
) -> None:
    target = ~isbi_slice_0
    thick = ~ndimage.binary_erosion(isbi_slice_0, iterations=2)
    cells, raw = cell_segments(target, grow=False), cell_segments(thick, grow=False)
    assert round(v_rand(thick, target), 4) == 0.9964

    # the reference keeps a line between grown segments, each of its pixels a segment of its own
    lined = watershed(np.zeros(raw.shape, dtype=np.uint8), raw, watershed_line=True)
    line = lined == 0
    lined[line] = lined.max() + 1 + np.arange(np.count_nonzero(line))
    assert round(_cell_scores(lined, cells)[0], 4) == 0.9965

    # the trap: ungrown, all that is label 0 in the proposal is taken for one huge segment
    assert round(1 - adapted_rand_error(cells, raw)[0], 3) == 0.578


# --- evaluate -------------------------------------------------------------------------------------


def noisy_stack(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Membrane probabilities and classes of three slices, each (3, 48, 48)."""
    rng = np.random.default_rng(seed)
    target = np.stack([mosaic(seed + i, size=48) for i in range(3)])
    sharp = np.clip(0.7 * target + rng.normal(0.1, 0.2, target.shape), 0, 1)
    return sharp, target.astype(int)


def test_evaluate_says_what_the_single_scores_say() -> None:
    probability, target = noisy_stack()
    scores = evaluate(probability, target)
    at_half = probability > 0.5
    assert scores.pixel_error == pixel_error(at_half, target)
    assert scores.dice == dice(at_half, target)
    assert scores.iou == iou(at_half, target)
    at_best = probability > scores.threshold
    assert scores.v_rand == pytest.approx(v_rand(at_best, target))
    assert scores.v_info == pytest.approx(v_info(at_best, target))


def test_evaluate_takes_the_one_threshold_with_the_best_mean_v_rand() -> None:
    probability, target = noisy_stack()
    levels = (0.1, 0.2, 0.3, 0.4, 0.5)
    by_slice = np.array(
        [
            [v_rand(p > level, t) for p, t in zip(probability, target, strict=True)]
            for level in levels
        ]
    )
    *_, second, best = sorted(by_slice.mean(axis=1))
    scores = evaluate(probability, target, thresholds=levels)
    assert scores.v_rand == pytest.approx(best)
    assert scores.threshold == levels[by_slice.mean(axis=1).argmax()]
    # the case tells: the best is inside the range, stands out, and each slice has its own best
    assert scores.threshold not in (levels[0], 0.5, levels[-1])
    assert best > second + 0.005
    assert best < by_slice.max(axis=0).mean()


def test_v_info_is_taken_where_v_rand_is_best_though_it_would_choose_otherwise() -> None:
    probability, target = noisy_stack(seed=7)
    levels = (0.25, 0.3, 0.4, 0.5)
    information = {level: v_info(probability > level, target) for level in levels}
    scores = evaluate(probability, target, thresholds=levels)
    assert scores.threshold == 0.3
    assert scores.v_info == pytest.approx(information[0.3])
    assert scores.v_info < max(information.values())


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    target = mosaic(0)
    assert evaluate(target.astype(float), target).threshold == 0.5
    assert evaluate(0.45 * target, target).threshold == 0.4
    # the order in which they are given does not matter
    assert evaluate(0.45 * target, target, thresholds=(0.1, 0.4, 0.2)).threshold == 0.4


def test_a_probability_that_equals_the_threshold_is_cell() -> None:
    target = np.zeros((9, 9), dtype=int)
    target[:, 4] = 1
    at_the_threshold = evaluate(0.25 * target, target, thresholds=(0.25,))
    assert at_the_threshold.v_rand == pytest.approx(2 / 3)  # everything is one segment
    assert evaluate(0.25 * target, target, thresholds=(0.24,)).v_rand == 1


def test_only_class_1_is_membrane() -> None:
    membrane = mosaic(0)
    mitochondrion = np.zeros_like(membrane)
    mitochondrion[20:26, 20:26] = True
    three_classes = np.where(membrane, 1, np.where(mitochondrion, 2, 0))
    probability = 0.9 * membrane
    assert evaluate(probability, three_classes) == evaluate(probability, membrane)


def test_a_perfect_prediction_has_perfect_scores() -> None:
    target = np.stack([mosaic(0), mosaic(1)]).astype(int)
    scores = evaluate(target.astype(np.float32), target)
    assert scores.pixel_error == 0
    assert (scores.dice, scores.iou) == (1, 1)
    assert scores.v_rand == pytest.approx(1)
    assert scores.v_info == pytest.approx(1)


def test_exactly_a_half_is_cell_as_arg_max_has_it() -> None:
    probability = np.full((4, 4), 0.5)
    logits = np.stack([1 - probability, probability])
    predicted = logits.argmax(axis=0)
    target = np.eye(4, dtype=int)
    assert evaluate(probability, target).pixel_error == pixel_error(predicted, target) == 0.25


def test_evaluate_takes_one_slice_a_stack_a_list_and_anything_numpy_can_read() -> None:
    probability, target = noisy_stack()

    class Tensor:
        """Something that only NumPy's protocol can read."""

        def __init__(self, values: NDArray[Any]) -> None:
            self.values = values

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
            return self.values if dtype is None else self.values.astype(dtype)

    expected = evaluate(probability, target)
    assert evaluate(list(probability), list(target)) == expected
    assert evaluate(Tensor(probability), Tensor(target)) == expected
    assert evaluate(probability[0], target[0]) == evaluate(probability[:1], target[:1])
    assert evaluate(probability[0].tolist(), target[0]) == evaluate(probability[0], target[0])

    # slices of different sizes: pixels are pooled, so the larger slice weighs more
    ragged = evaluate([probability[0], probability[1][:20, :30]], [target[0], target[1][:20, :30]])
    wrong = [
        np.count_nonzero((probability[0] > 0.5) != target[0]),
        np.count_nonzero((probability[1] > 0.5)[:20, :30] != target[1][:20, :30]),
    ]
    assert ragged.pixel_error == pytest.approx(sum(wrong) / (48 * 48 + 20 * 30))


@pytest.mark.parametrize("wrong", [-3.0, 1.5, np.nan])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    probability, target = noisy_stack()
    probability[0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*softmax"):
        evaluate(probability, target)


def test_rounding_above_one_is_no_reason_to_refuse() -> None:
    target = mosaic(0)
    assert evaluate(target * (1 + 1e-6), target).dice == 1


def test_an_image_of_0_and_255_is_no_target() -> None:
    probability, target = noisy_stack()
    with pytest.raises(ValueError, match=r"class indices.*the values 0, 255"):
        evaluate(probability, (255 * target).astype(np.uint8))


@pytest.mark.parametrize("thresholds", [(), (0.5, 1.2), (-0.1,), (float("nan"),)])
def test_impossible_thresholds_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="thresholds must be"):
        evaluate(np.zeros((3, 3)), np.zeros((3, 3), dtype=int), thresholds=thresholds)


def test_scores_read_well_and_cannot_be_changed() -> None:
    scores = Scores(0.0769, 0.8018, 0.6692, 0.9747, 0.9829, 0.4)
    assert str(scores) == (
        "pixel error 0.0769 · Dice 0.8018 · IoU 0.6692 · V_Rand 0.9747 · V_Info 0.9829 "
        "(threshold 0.4)"
    )
    assert eval(repr(scores)) == scores
    assert Scores(**scores.as_dict()) == scores
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.dice = 1.0  # type: ignore[misc]


# --- error by distance ----------------------------------------------------------------------------


def test_an_error_at_the_edge_and_one_in_the_middle_fall_into_different_ranges() -> None:
    target = np.zeros((9, 9), dtype=int)
    target[:, 4:] = 1
    at_the_edge, in_the_middle = target.copy(), target.copy()
    at_the_edge[2, 4] = 0
    in_the_middle[2, 8] = 0
    edges = (0, 1, 4, np.inf)
    first = error_by_distance(at_the_edge, target, edges)
    assert first.pixels.tolist() == [18, 54, 9]
    assert first.error.tolist() == [1 / 18, 0, 0]
    assert error_by_distance(in_the_middle, target, edges).error.tolist() == [0, 0, 1 / 9]


@calm
@given(
    hnp.arrays(np.uint8, (2, 6, 7), elements=st.integers(0, 2)),
    hnp.arrays(np.uint8, (2, 6, 7), elements=st.integers(0, 2)),
)
def test_the_profile_is_what_counting_pixel_by_pixel_gives(
    prediction: NDArray[np.uint8], target: NDArray[np.uint8]
) -> None:
    edges = (0, 1, 1.5, 2, 4, np.inf)
    pixels, wrong = np.zeros(5), np.zeros(5)
    for n, y, x in np.ndindex(target.shape):
        others = np.argwhere(target[n] != target[n, y, x])
        distance = np.hypot(*(others - (y, x)).T).min() if len(others) else np.inf
        k = next(k for k in range(5) if edges[k] < distance <= edges[k + 1])
        pixels[k] += 1
        wrong[k] += prediction[n, y, x] != target[n, y, x]
    profile = error_by_distance(prediction, target, edges)
    assert profile.pixels.tolist() == pixels.tolist()
    filled = pixels > 0
    assert profile.error[filled] == pytest.approx(wrong[filled] / pixels[filled])
    assert np.all(np.isnan(profile.error[~filled]))
    # its mean, weighted by the pixels, is the pixel error
    assert np.nansum(profile.error * profile.pixels) / pixels.sum() == pytest.approx(
        pixel_error(prediction, target)
    )


def test_without_an_edge_every_pixel_is_infinitely_far() -> None:
    profile = error_by_distance(np.eye(5, dtype=int), np.zeros((5, 5), dtype=int))
    assert profile.pixels.tolist() == [0, 0, 0, 0, 0, 0, 0, 25]
    assert profile.error[-1] == 0.2
    finite = error_by_distance(np.eye(5, dtype=int), np.zeros((5, 5), dtype=int), edges=(0, 9))
    assert finite.pixels.tolist() == [0]


@pytest.mark.parametrize("edges", [(0,), (0, 2, 2), (3, 1), ()])
def test_limits_that_do_not_increase_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="increasing distances"):
        error_by_distance([[0, 1]], [[0, 1]], edges)
