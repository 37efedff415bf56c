"""The steppers compute what torch does, and show it number by number."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OpenWidget
from torch.nn import functional as F

from unet_tutorial.widgets import BookWidget
from unet_tutorial.widgets._steppers import (
    ConvolutionStepper,
    PoolingStepper,
    TransposedStepper,
    micrograph_patch,
)

STEPPERS: list[Callable[..., BookWidget]] = [ConvolutionStepper, PoolingStepper, TransposedStepper]
EDGE = [[-1, 0, 1]] * 3


def random_map(rows: int, columns: int, seed: int = 0) -> list[list[float]]:
    return np.random.default_rng(seed).normal(size=(rows, columns)).round(2).tolist()


def batch(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[None, None]


# --- in Python


def test_default_patch_is_a_real_piece_of_a_micrograph():
    patch = np.array(micrograph_patch(9, 10))
    assert patch.shape == (9, 9)
    assert (patch.min(), patch.max()) == (0, 9)
    assert ConvolutionStepper().image == patch.tolist()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
def test_written_sum_is_the_convolution_everywhere(padding, stride):
    stepper = ConvolutionStepper(random_map(6, 7), EDGE, padding=padding, stride=stride)
    expected = F.conv2d(
        batch(stepper.image), batch(EDGE), stride=stride, padding=int(padding == "same")
    )[0, 0]
    assert stepper.walked() == tuple(expected.shape)
    for index, value in enumerate(expected.flatten().tolist()):
        stepper.position = index
        products, result = re.sub("[()]", "", stepper.sum()).replace("−", "-").split(" = ")
        pairs = [pair.split("·") for pair in products.split(" + ")]
        assert len(pairs) == 9
        assert sum(float(x) * float(w) for x, w in pairs) == pytest.approx(value, abs=1e-9)
        assert float(result) == pytest.approx(value, abs=0.0051)


def test_place_stays_within_the_output_when_that_shrinks():
    stepper = ConvolutionStepper(position=80)
    stepper.padding = "valid"
    assert stepper.place() == (6, 6)
    stepper.stride = 2
    assert stepper.place() == (3, 3)


def test_pooling_says_who_won_and_what_is_lost():
    stepper = PoolingStepper([[1, 5, 0, 0, 7], [5, 2, 0, -3, 7], [9, 9, 9, 9, 9]])
    assert stepper.output().tolist() == [[5, 0]]
    assert stepper.rows() == [
        ("row 0, column 0", "5", "top right", "1, 5, 2"),
        ("row 0, column 1", "0", "top left", "0, 0, −3"),
    ]


def test_flat_map_shows_which_stencil_makes_a_checkerboard():
    seen = {}
    for name in TransposedStepper().stencils:
        stepper = TransposedStepper(stencil=name, input="flat")
        inside = stepper.output()[2:-2, 2:-2]
        seen[name] = (np.unique(stepper.overlap()).tolist(), float(np.ptp(inside)))
    assert seen == {
        "kernel 2, all 1": ([1], 0),
        "kernel 3, all 1": ([1, 2, 4], 3),
        "kernel 3, bilinear": ([1, 2, 4], 0),
        "kernel 2, unequal": ([1], 3),
    }


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"3 to 12 rows.*got shape \(1, 64, 64\): cut out"):
        ConvolutionStepper(np.zeros((1, 64, 64)))
    with pytest.raises(ValueError, match=r"weights must have shape \(3, 3\), got \(5, 5\)"):
        ConvolutionStepper(weights=np.ones((5, 5)))
    with pytest.raises(ValueError, match="names no kernel"):
        ConvolutionStepper(weights={})
    with pytest.raises(ValueError, match="must be finite"):
        PoolingStepper([[1, float("nan")], [0, 0]])
    with pytest.raises(ValueError, match=r"one of 'edge', 'blur', 'identity'; got 'sharp'"):
        ConvolutionStepper(kernel="sharp")
    with pytest.raises(ValueError, match=r"one of 'kernel 2, all 1'.*got 'kernel 5'"):
        TransposedStepper(stencil="kernel 5")
    stepper = PoolingStepper(position=15)
    with pytest.raises(ValueError, match=r"below 16, since there are 4×4 places.*got 16"):
        stepper.position = 16
    assert stepper.position == 15


# --- in a browser

LIVE = ".unet-widget-live"
SENTENCE = f"{LIVE} > p:not(.unet-spoken)"


def grids(page: Any) -> list[list[list[str]]]:
    """The numbers of all grids, as they stand in the page."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".unet-widget-live table")].map(table =>
             [...table.rows].map(row => [...row.cells].map(cell => cell.textContent)))"""
    )


def framed(page: Any, grid: int) -> list[tuple[int, int, int]]:
    """Rows, columns and widths of the frames in a grid."""
    found = page.evaluate(
        """k => [...document.querySelectorAll(".unet-widget-live table")[k].querySelectorAll("td")]
             .map(cell => [cell.parentNode.rowIndex, cell.cellIndex,
                           parseInt(cell.style.outlineWidth)])
             .filter(([, , width]) => width)""",
        grid,
    )
    return [tuple(frame) for frame in found]


def numbers(grid: list[list[str]]) -> np.ndarray:
    return np.array([[float(text.replace("−", "-") or "nan") for text in row] for row in grid])


def settle(page: Any) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def slide(page: Any, to: int) -> None:
    page.locator(f"{LIVE} input[type=range]").fill(str(to))
    settle(page)


@pytest.fixture
def convolution(open_widget: OpenWidget) -> Any:
    return open_widget(ConvolutionStepper())


@pytest.mark.parametrize("size", [(3, 3), (9, 9), (6, 7), (5, 12)])
def test_page_computes_what_torch_does(convolution, size):
    page = convolution
    image, kernel = random_map(*size), random_map(3, 3, seed=1)
    for padding in ("same", "valid"):
        for stride in (1, 2):
            found = page.evaluate(
                "given => UNetBook.convolve(...given).output", [image, kernel, padding, stride]
            )
            expected = F.conv2d(
                batch(image), batch(kernel), stride=stride, padding=int(padding == "same")
            )[0, 0]
            assert np.shape(found) == expected.shape
            assert np.allclose(found, expected, atol=1e-12)
    squares = page.evaluate("values => UNetBook.maxPool(values)", image)
    best, where = F.max_pool2d(batch(image), 2, return_indices=True)
    assert [[square["best"] for square in row] for row in squares] == best[0, 0].tolist()
    for (r, c), index in np.ndenumerate(where[0, 0].numpy()):
        row, column = divmod(int(index), size[1])
        assert squares[r][c]["winner"] == 2 * (row - 2 * r) + column - 2 * c
    for side in (2, 3, 4):
        stencil = random_map(side, side, seed=side)
        found = page.evaluate("given => UNetBook.scatter(...given)", [image, stencil])
        expected = F.conv_transpose2d(batch(image), batch(stencil), stride=2)[0, 0]
        assert np.allclose(found, expected, atol=1e-12)
    found = page.evaluate("values => UNetBook.bilinear(values)", image)
    expected = F.interpolate(batch(image), scale_factor=2.0, mode="bilinear", align_corners=False)
    assert np.allclose(found, expected[0, 0], atol=1e-12)
    assert page.complaints == []


def test_of_equals_the_first_wins_in_the_page_too(convolution):
    values = [[3, 3, 0, 1], [3, 3, 1, 1]]
    squares = convolution.evaluate("values => UNetBook.maxPool(values)", values)
    _, where = F.max_pool2d(batch(values), 2, return_indices=True)
    assert where[0, 0].tolist() == [[0, 3]]
    assert [square["winner"] for square in squares[0]] == [0, 1]


def test_output_fills_up_to_the_place_and_is_torch_s(convolution):
    stepper = ConvolutionStepper()
    for index in (0, 40, 80):
        slide(convolution, index)
        stepper.position = index
        shown = numbers(grids(convolution)[2]).ravel()
        assert shown[: index + 1].tolist() == stepper.output().ravel()[: index + 1].tolist()
        assert np.isnan(shown[index + 1 :]).all()
        row, column = stepper.place()
        words = f"output at row {row}, column {column}: {stepper.sum()}"
        assert convolution.locator(SENTENCE).text_content() == words
        assert framed(convolution, 2) == [(row, column, 2)]
        assert [frame[:2] for frame in framed(convolution, 0)] == [
            (row + i, column + j) for i in range(3) for j in range(3)
        ]
    assert convolution.complaints == []


def test_kernel_padding_and_stride_are_chosen_in_the_page(convolution):
    stepper = ConvolutionStepper()
    slide(convolution, 80)
    for kernel, padding, stride in (("blur", "valid", 1), ("identity", "valid", 2)):
        stepper.kernel, stepper.padding, stepper.stride = kernel, padding, stride
        for name in ("kernel", "padding", "stride"):
            convolution.get_by_label(name, exact=True).select_option(str(getattr(stepper, name)))
        settle(convolution)
        expected = stepper.output()
        assert np.allclose(numbers(grids(convolution)[2]), expected, atol=0.0051)
        slider = convolution.locator(f"{LIVE} input[type=range]")
        assert slider.get_attribute("max") == str(expected.size - 1)


def test_keys_and_clicks_choose_the_place(convolution):
    page = convolution
    page.get_by_role("group", name="output: arrow keys choose").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    settle(page)
    assert framed(page, 2) == [(1, 1, 2)]
    page.locator(f"{LIVE} table").nth(2).locator("tr").nth(4).locator("td").nth(7).click()
    settle(page)
    assert framed(page, 2) == [(4, 7, 2)]
    slider = page.get_by_label("output", exact=True)
    assert slider.get_attribute("aria-valuetext") == "row 4, column 7"
    slider.focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    assert framed(page, 2) == [(4, 8, 2)]
    page.locator(".unet-spoken", has_text="row 4, column 8").wait_for(state="attached")


def test_those_who_want_little_motion_get_a_button_for_one_step(convolution):
    button = convolution.get_by_role("button", name="next")
    for place in range(1, 3):
        button.click()
        settle(convolution)
        assert framed(convolution, 2) == [(0, place, 2)]
    convolution.wait_for_timeout(500)
    assert framed(convolution, 2) == [(0, 2, 2)]


def test_play_runs_round_and_can_be_stopped(open_widget: OpenWidget):
    page = open_widget(PoolingStepper([[1, 2, 5, 4, 0, 0], [3, 4, 1, 2, 1, 0]]))
    page.emulate_media(reduced_motion="no-preference")
    page.reload()
    page.get_by_role("button", name="play").click()
    page.get_by_role("button", name="pause").click()
    before = framed(page, 1)
    page.wait_for_timeout(500)
    assert framed(page, 1) == before
    page.get_by_role("button", name="play").click()
    page.locator(SENTENCE, has_text="square at row 0, column 2").wait_for()
    page.locator(SENTENCE, has_text="square at row 0, column 0").wait_for()  # and again


def test_moved_winner_gives_the_same_output(open_widget: OpenWidget):
    page = open_widget(PoolingStepper([[1, 5, 8, 8], [3, 5, 8, 8], [0, 0, 0, 0]], position=0))
    slide(page, 1)
    pooled = grids(page)[1]
    slide(page, 0)
    seen = []
    for _ in range(4):
        seen.append(page.locator(SENTENCE).text_content().split(", ")[2])
        winner = [frame[:2] for frame in framed(page, 0) if frame[2] == 3]
        assert len(winner) == 1
        page.get_by_role("button", name="move the winner").click()
        settle(page)
        assert grids(page)[1][0][0] == pooled[0][0] == "5"
    assert len(set(seen)) >= 3
    assert sorted("".join(text for row in grids(page)[0][:2] for text in row)) == [*"13558888"]
    slide(page, 1)
    page.get_by_role("button", name="move the winner").click()  # four equals: nothing to move
    settle(page)
    assert grids(page)[1] == pooled
    page.locator(f"{LIVE} table").first.locator("td").nth(5).click()
    settle(page)
    assert framed(page, 1) == [(0, 0, 2)]
    page.locator(f"{LIVE} table").first.locator("td").nth(8).click()  # the row that is dropped
    settle(page)
    assert framed(page, 1) == [(0, 0, 2)]
    assert page.complaints == []


def test_stamps_add_up_to_the_transposed_convolution(open_widget: OpenWidget):
    page = open_widget(TransposedStepper())
    for name in TransposedStepper().stencils:
        for source in ("given", "flat"):
            stepper = TransposedStepper(stencil=name, input=source)
            page.get_by_label("stencil", exact=True).select_option(name)
            page.get_by_label("input", exact=True).select_option(source)
            page.get_by_label("show", exact=True).select_option("sum")
            slide(page, 15)
            assert np.allclose(numbers(grids(page)[2]), stepper.output(), atol=0.0051)
            assert np.allclose(numbers(grids(page)[3]), stepper.bilinear(), atol=0.0051)
            page.get_by_label("show", exact=True).select_option("overlap")
            settle(page)
            assert (numbers(grids(page)[2]) == stepper.overlap()).all()
    slide(page, 5)
    side = len(stepper.stencils[name])
    assert [frame[:2] for frame in framed(page, 2)] == [
        (2 + i, 2 + j) for i in range(side) for j in range(side)
    ]
    assert page.complaints == []


@pytest.mark.parametrize("stepper", STEPPERS)
def test_numbers_stand_out_from_their_colors(open_widget: OpenWidget, stepper):
    page = open_widget(stepper())
    slide(page, 15)
    pairs = page.evaluate(
        """() => [...document.querySelectorAll(".unet-widget-live td")]
             .filter(cell => cell.style.background)
             .map(cell => [getComputedStyle(cell).color, getComputedStyle(cell).backgroundColor])"""
    )

    def luminance(color: str) -> float:
        parts = np.array([int(part) for part in re.findall(r"\d+", color)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    assert len(pairs) > 20
    for pair in pairs:
        low, high = sorted(map(luminance, pair))
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair
