"""Exercises of chapter 5: the paper's training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    describe,
    exercise,
    expect_close,
    expect_function,
    shape_text,
)


@exercise(
    "5.1",
    "The weight of a border",
    answer="a function border_weight(d1, d2) that returns the weight, or an array of weights",
    hint="The two distances are added first, and their sum is squared. np.exp takes numbers and "
    "arrays alike; math.exp only takes numbers.",
    shown="Only a pixel that is close to two cells weighs much; close to one and far from the "
    "other is not enough.",
)
def _(answer: Any) -> None:
    border_weight = expect_function(answer, "border_weight(d1, d2)")

    def expected(d1: Any, d2: Any) -> Any:
        return 10 * np.exp(-((d1 + d2) ** 2) / 50)

    for d1, d2, what in (
        (0.0, 0.0, ", no distance at all: the weight is w₀"),
        (1.0, 1.0, ", the pixel in a gap of one"),
        (2.0, 3.0, ""),
        (1.0, 9.0, ", far from the second cell"),
        (20.0, 30.0, ", far from both"),
    ):
        weight = call(border_weight, d1, d2, tried=f"border_weight({d1:g}, {d2:g})")
        expect_close(weight, float(expected(d1, d2)), f"border_weight({d1:g}, {d2:g}){what}")
    first = np.array([[1.0, 2.0, 5.0], [3.0, 1.0, 4.0]])
    second = np.array([[1.0, 4.0, 5.5], [9.0, 20.0, 4.0]])
    tried = "border_weight of two arrays 2×3, the distances of six pixels"
    expect_close(call(border_weight, first, second, tried=tried), expected(first, second), tried)


@exercise(
    "5.2",
    "How many tiles?",
    answer="a function count_tiles(height, width) that returns a whole number",
    hint="Count along one side first. One tile answers 388 pixels, and each further one adds 384. "
    "What is left over at the end needs a tile as well: round up.",
    shown="The same numbers as those of tile_plan, for all sizes that were tried.",
)
def _(answer: Any) -> None:
    count_tiles = expect_function(answer, "count_tiles(height, width)")
    for size in (
        (388, 388),
        (389, 388),
        (388, 389),
        (774, 388),
        (100, 3),
        (512, 512),
        (1000, 700),
        (4096, 4096),
    ):
        tried = f"count_tiles{size}"
        number = call(count_tiles, *size, tried=tried)
        expect_close(number, float(math.prod(map(_tiles_along, size))), tried)


def _tiles_along(length: int) -> int:
    """Count the tiles along one side; tests/test_exercises.py compares it with tile_plan."""
    return max(1, math.ceil((length - 4) / 384))


@exercise(
    "5.3",
    "Bend an image and its labels",
    answer="a function bend(image, labels, rows, columns) that returns both, bent",
    hint="scipy.ndimage.map_coordinates(picture, (rows, columns), order=…, mode='mirror') reads a "
    "picture at any places. Order 0 takes the nearest pixel, order 1 a value on the line between "
    "two. Which of the two pictures must hold no value that was not there before?",
    shown="The image flows, the labels jump, and both at the same places: no class was invented.",
)
def _(answer: Any) -> None:
    bend = expect_function(answer, "bend(image, labels, rows, columns)")
    image = np.random.default_rng(0).random((24, 40))
    labels = np.zeros((24, 40), dtype=np.int64)
    labels[6:18, 8:30] = 2
    labels[14:22, 20:36] = 1
    rows, columns = np.mgrid[:24, :40].astype(float)
    by_rows, by_columns = 1.7 * np.sin(columns / 5) + 0.01, 2.3 * np.cos(rows / 4) + 0.01
    for told, places in (
        ("each pixel read where it is", (rows, columns)),
        ("each pixel read 3 rows further down", (rows + 3, columns)),
        ("each pixel read 5.3 columns to the right", (rows, columns + 5.3)),
        ("each pixel read up to 3 pixels away", (rows + by_rows, columns + by_columns)),
    ):
        tried = f"bend(image, labels, rows, columns), {told}"
        given = call(bend, image, labels, *places, tried=tried)
        _expect_bent(given, image, labels, places, tried)


Places = tuple[np.ndarray, np.ndarray]


def _expect_bent(
    given: Any, image: np.ndarray, labels: np.ndarray, places: Places, tried: str
) -> None:
    """Compare with lines between pixels for the image, and nearest pixels for the labels."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Wrong(f"{tried}: (image, labels) is expected, and {describe(given)} came.")
    bent, marks = given
    for name, array in (("image", bent), ("labels", marks)):
        if not isinstance(array, np.ndarray) or array.shape != image.shape:
            raise Wrong(
                f"{tried}: expected {name} as a numpy array of shape {shape_text(image.shape)}, "
                f"got {describe(array)}."
            )
    if marks.dtype.kind not in "iu":
        raise Wrong(f"{tried}: expected labels of whole numbers as before, got {marks.dtype}.")
    rows, columns = places
    inside = (rows >= 0) & (rows <= image.shape[0] - 1)
    inside &= (columns >= 0) & (columns <= image.shape[1] - 1)
    if not np.allclose(bent[inside], _read(image, places, 1)[inside], atol=1e-5):
        raise Wrong(f"{tried}: {_what_else(bent, image, places, inside)}")
    if not np.array_equal(marks[inside], _read(labels, places, 0)[inside]):
        raise Wrong(f"{tried}: {_what_else_of_labels(marks, labels, places, inside)}")
    # Whether the first and the last pixel are repeated or not: both are mirrors.
    mirrors = [
        np.allclose(bent, _read(image, places, 1, mode), atol=1e-5)
        and np.array_equal(marks, _read(labels, places, 0, mode))
        for mode in ("mirror", "reflect")
    ]
    if not any(mirrors):
        raise Wrong(
            f"{tried}: right inside. Beyond the border, at {np.mean(~inside):.0%} of the pixels, "
            "image or labels are not mirrored."
        )


def _read(picture: np.ndarray, places: Places, order: int, mode: str = "mirror") -> np.ndarray:
    return np.asarray(map_coordinates(picture, places, order=order, mode=mode))


def _what_else(bent: np.ndarray, image: np.ndarray, places: Places, inside: np.ndarray) -> str:
    """Say what was done to the image in place of lines between its pixels."""

    def is_like(other: np.ndarray) -> bool:
        return np.allclose(bent[inside], other[inside], atol=1e-5)

    if is_like(image):
        return "the image has not moved."
    if is_like(_read(image, places, 0)):
        return (
            "the image is taken from the nearest pixel; expected values on a straight line "
            "between pixels, or straight lines become stairs."
        )
    if is_like(_read(image, places[::-1], 1)):
        return "the image is read with rows and columns exchanged."
    low, high = float(bent[inside].min()), float(bent[inside].max())
    if low < image.min() or high > image.max():
        return (
            f"the image holds {low:.2f} to {high:.2f} where all it was made of lies between "
            f"{image.min():.2f} and {image.max():.2f}; expected values on a straight line between "
            "two pixels."
        )
    expected = _read(image, places, 1)
    row, column = np.argwhere(inside & ~np.isclose(bent, expected, atol=1e-5))[0].tolist()
    return (
        f"image pixel ({row}, {column}) is read at ({places[0][row, column]:.2f}, "
        f"{places[1][row, column]:.2f}): expected {expected[row, column]:.3f}, got "
        f"{bent[row, column]:.3f}."
    )


def _what_else_of_labels(
    marks: np.ndarray, labels: np.ndarray, places: Places, inside: np.ndarray
) -> str:
    """Say what was done to the labels in place of taking the nearest pixel."""
    if np.array_equal(marks[inside], labels[inside]):
        return "the labels have stayed behind; expected them bent like the image."
    expected = _read(labels, places, 0)
    row, column = np.argwhere(inside & (marks != expected))[0].tolist()
    return (
        f"label ({row}, {column}) is read at ({places[0][row, column]:.2f}, "
        f"{places[1][row, column]:.2f}): expected class {expected[row, column]}, got "
        f"{marks[row, column]}; between two classes there is no third."
    )
