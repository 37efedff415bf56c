"""Plausible wrong answers to the exercises of chapter 5, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from unet_tutorial.augmentation import deform


def no_square(d1: Any, d2: Any) -> Any:
    return 10 * np.exp(-(d1 + d2) / 50)


def squares_added(d1: Any, d2: Any) -> Any:
    return 10 * np.exp(-(d1**2 + d2**2) / 50)


def no_factor_two(d1: Any, d2: Any) -> Any:
    return 10 * np.exp(-((d1 + d2) ** 2) / 25)


def no_height(d1: Any, d2: Any) -> Any:
    return np.exp(-((d1 + d2) ** 2) / 50)


def sign_forgotten(d1: Any, d2: Any) -> Any:
    return 10 * np.exp((d1 + d2) ** 2 / 50)


def nearest_only(d1: Any, d2: Any) -> Any:
    return 10 * np.exp(-((2 * np.minimum(d1, d2)) ** 2) / 50)


def numbers_only(d1: Any, d2: Any) -> Any:
    return 10 * math.exp(-((d1 + d2) ** 2) / 50)


def one_side(height: int, width: int) -> Any:
    return math.ceil(height / 388)


def rounded_down(height: int, width: int) -> Any:
    return (height // 388) * (width // 388)


def no_step(height: int, width: int) -> Any:
    return math.ceil(height / 388) * math.ceil(width / 388)


def no_first(height: int, width: int) -> Any:
    return math.ceil(height / 384) * math.ceil(width / 384)


def inputs_counted(height: int, width: int) -> Any:
    return math.ceil(height / 572) * math.ceil(width / 572)


def sides_added(height: int, width: int) -> Any:
    return math.ceil((height - 4) / 384) + math.ceil((width - 4) / 384)


def parts_of_tiles(height: int, width: int) -> Any:
    return (height - 4) / 384 * (width - 4) / 384


def none_for_small(height: int, width: int) -> Any:
    return math.ceil((height - 4) / 384) * math.ceil((width - 4) / 384)


def _read(picture: Any, places: Any, order: int, mode: str = "mirror") -> Any:
    return map_coordinates(picture, places, order=order, mode=mode)


def both_interpolated(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (rows, columns), 1), _read(labels, (rows, columns), 1)


def labels_as_floats(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (rows, columns), 1), _read(labels.astype(float), (rows, columns), 1)


def labels_rounded(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    marks = _read(labels.astype(float), (rows, columns), 1)
    return _read(image, (rows, columns), 1), marks.round().astype(int)


def both_nearest(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (rows, columns), 0), _read(labels, (rows, columns), 0)


def labels_left_behind(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (rows, columns), 1), labels


def exchanged(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (columns, rows), 1), _read(labels, (columns, rows), 0)


def spline(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (rows, columns), 3), _read(labels, (rows, columns), 0)


def nothing_beyond(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    places = rows, columns
    return _read(image, places, 1, "constant"), _read(labels, places, 0, "constant")


def image_only(image: Any, labels: Any, rows: Any, columns: Any) -> Any:
    return _read(image, (rows, columns), 1)


WRONG: dict[str, list[tuple[Any, str]]] = {
    "5.1": [
        (no_square, "border_weight(1, 1), the pixel in a gap of one: expected 9.231, got 9.608"),
        (squares_added, "border_weight(1, 1), the pixel in a gap of one: expected 9.231, got"),
        (no_factor_two, "expected 9.231, got 8.521"),
        (no_height, "the weight is w₀: expected 10, got 1"),
        (sign_forgotten, "expected 9.231, got 10.83"),
        (nearest_only, "border_weight(2, 3): expected 6.065, got 7.261"),
        (numbers_only, "two arrays 2×3, the distances of six pixels stopped with TypeError"),
        (9.23, "function border_weight(d1, d2) is expected, and you gave 9.23"),
    ],
    "5.2": [
        (one_side, "count_tiles(388, 389): expected 2, got 1"),
        (rounded_down, "count_tiles(389, 388): expected 2, got 1"),
        (no_step, "count_tiles(774, 388): expected 3, got 2"),
        (no_first, "count_tiles(388, 388): expected 1, got 4"),
        (inputs_counted, "count_tiles(389, 388): expected 2, got 1"),
        (sides_added, "count_tiles(388, 388): expected 1, got 2"),
        (parts_of_tiles, "count_tiles(389, 388): expected 2, got 1.003"),
        (none_for_small, "count_tiles(100, 3): expected 1, got 0"),
        (6, "function count_tiles(height, width) is expected"),
    ],
    "5.3": [
        (both_interpolated, "between two classes there is no third"),
        (labels_as_floats, "expected labels of whole numbers as before, got float64"),
        (labels_rounded, "expected class"),
        (both_nearest, "the image is taken from the nearest pixel"),
        (labels_left_behind, "the labels have stayed behind"),
        (exchanged, "rows and columns exchanged"),
        (spline, "on a straight line between two pixels"),
        (nothing_beyond, "image or labels are not mirrored"),
        (image_only, "(image, labels) is expected"),
    ],
}


def border_weight(d1: Any, d2: Any) -> Any:
    return 10.0 * np.exp(-0.5 * np.square((d1 + d2) / 5))


def count_tiles_in_a_loop(height: int, width: int) -> float:
    def along(length: int) -> int:
        number, answered = 1, 388
        while answered < length:
            number, answered = number + 1, answered + 384
        return number

    return float(along(height) * along(width))


def bend_by_torch(image: Any, labels: Any, rows: Any, columns: Any) -> list[np.ndarray]:
    own = np.mgrid[: image.shape[0], : image.shape[1]]
    away = torch.from_numpy(np.stack((rows, columns)) - own)[None].float()
    pictures = torch.from_numpy(image)[None, None].float(), torch.from_numpy(labels)[None]
    bent, marks = deform(*pictures, away)
    return [bent[0, 0].numpy(), marks[0].numpy()]


RIGHT: dict[str, list[Any]] = {
    "5.1": [border_weight],
    "5.2": [count_tiles_in_a_loop],
    "5.3": [bend_by_torch],
}
