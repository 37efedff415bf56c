"""Plausible wrong answers to the exercises of chapter 0, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Mask = np.ndarray


def without_empty_case(prediction: Mask, truth: Mask) -> float:
    with np.errstate(invalid="ignore"):
        return 2 * (prediction * truth).sum() / (prediction.sum() + truth.sum())


def empty_is_zero(prediction: Mask, truth: Mask) -> float:
    both = prediction.sum() + truth.sum()
    return 2 * (prediction * truth).sum() / both if both else 0.0


def one_where_truth_is_empty(prediction: Mask, truth: Mask) -> float:
    if not truth.any():
        return 1.0
    return 2 * (prediction * truth).sum() / (prediction.sum() + truth.sum())


def iou(prediction: Mask, truth: Mask) -> float:
    either = np.maximum(prediction, truth).sum()
    return (prediction * truth).sum() / either if either else 1.0


def without_twice(prediction: Mask, truth: Mask) -> float:
    both = prediction.sum() + truth.sum()
    return (prediction * truth).sum() / both if both else 1.0


def share_of_right_pixels(prediction: Mask, truth: Mask) -> float:
    return float((prediction == truth).mean())


def smoothed(prediction: Mask, truth: Mask) -> float:
    return (2 * (prediction * truth).sum() + 1) / (prediction.sum() + truth.sum() + 1)


def python_division(prediction: Mask, truth: Mask) -> float:
    return 2 * int((prediction * truth).sum()) / int(prediction.sum() + truth.sum())


def a_map(prediction: Mask, truth: Mask) -> Any:
    return prediction * truth


Network = Callable[[Tensor], Tensor]


def at_once(network: Network, image: Tensor, side: int) -> Tensor:
    return network(image)


def one_too_few(network: Network, image: Tensor, side: int) -> Tensor:
    rows, columns = image.shape[2] - side, image.shape[3] - side
    answers = torch.zeros(1, 2, rows, columns)
    for row in range(rows):
        for column in range(columns):
            window = image[:, :, row : row + side, column : column + side]
            answers[:, :, row, column] = network(window)[:, :, 0, 0]
    return answers


def side_by_side(network: Network, image: Tensor, side: int) -> Tensor:
    rows, columns = image.shape[2] // side, image.shape[3] // side
    answers = torch.zeros(1, 2, rows, columns)
    for row in range(rows):
        for column in range(columns):
            top, left = row * side, column * side
            window = image[:, :, top : top + side, left : left + side]
            answers[:, :, row, column] = network(window)[:, :, 0, 0]
    return answers


def around_the_middle(network: Network, image: Tensor, side: int) -> Tensor:
    answers = torch.zeros(1, 2, *image.shape[2:])
    for row in range(image.shape[2]):
        for column in range(image.shape[3]):
            window = image[:, :, row - side // 2 : row + side // 2 + 1]
            window = window[:, :, :, column - side // 2 : column + side // 2 + 1]
            answers[:, :, row, column] = network(window)[:, :, 0, 0]
    return answers


def first_class_only(network: Network, image: Tensor, side: int) -> Tensor:
    rows, columns = image.shape[2] - side + 1, image.shape[3] - side + 1
    answers = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            window = image[:, :, row : row + side, column : column + side]
            answers[row, column] = network(window)[0, 0, 0, 0]
    return answers


def rows_and_columns(network: Network, image: Tensor, side: int) -> Tensor:
    rows, columns = image.shape[2] - side + 1, image.shape[3] - side + 1
    answers = [
        network(image[:, :, row : row + side, column : column + side])
        for column in range(columns)
        for row in range(rows)
    ]
    return torch.cat(answers, dim=3).reshape(1, 2, rows, columns)


def forgetful(network: Network, image: Tensor, side: int) -> None:
    for row in range(image.shape[2] - side + 1):
        for column in range(image.shape[3] - side + 1):
            network(image[:, :, row : row + side, column : column + side])


WRONG: dict[str, list[tuple[Any, str]]] = {
    "0.1": [
        ((0.04, 0.5, 1), "too small. The membrane is too wide on both sides"),
        ((0.12, 0.5, 1), "The membrane's own pixels are right"),
        ((50, 0.5, 1), "That is the number of wrong pixels"),
        ((0.08, 1 / 3, 1), "That is IoU"),
        ((0.08, 2 / 3, 1), "too wide on both sides"),
        ((0.08, 0.92, 1), "Dice asks for the membrane alone"),
        ((0.08, 0.5, 0.667), "through which the cells run together"),
        ((0.08, 0.5), "3 parts, and you gave 2"),
        (0.08, "Expected is (pixel error, Dice, V_Rand), and you gave 0.08"),
    ],
    "0.2": [
        (69, "So many see 139 pixels"),
        (139, "adds pixels on both sides"),
        (140, "too large. Each convolution adds pixels on both sides"),
        (47, "overlapping windows"),
        (10, "here there is no pooling"),
        (69.5, "is not 69.5: too small"),
        ("70", "must be one number, and you gave the text '70'"),
    ],
    "0.3": [
        (without_empty_case, "nothing to find and nothing found: expected 1, got nan"),
        (empty_is_zero, "nothing to find and nothing found: expected 1, got 0"),
        (one_where_truth_is_empty, "and none in the truth: expected 0, got 1"),
        (iou, "that is IoU"),
        (without_twice, "expected 1, got 0.5"),
        (share_of_right_pixels, "Dice asks for the membrane alone"),
        (smoothed, "expected 0.5, got 0.52"),
        (python_division, "nothing found stopped with ZeroDivisionError: division by zero"),
        (a_map, "one number is expected, and a numpy array of shape 6×8 came"),
        (0.8, "A function own_dice(prediction, truth) is expected"),
    ],
    "0.4": [
        (at_once, "asked for 9×9 pixels at once"),
        (one_too_few, "there are 9 places for the window, and the network was asked 4 times"),
        (side_by_side, "there are 9 places for the window, and the network was asked 1 times"),
        (around_the_middle, "stopped with RuntimeError"),
        (first_class_only, "expected shape 1×2×3×3, got 3×3"),
        (rows_and_columns, "rows and columns are exchanged"),
        (forgetful, "returned nothing. Is a `return` missing?"),
        (torch.zeros(1, 2, 3, 3), "Give the function itself, without calling it"),
    ],
}


def with_logic(prediction: Mask, truth: Mask) -> Any:
    found, there = prediction > 0, truth > 0
    if not (found | there).any():
        return 1
    return np.float64(2) * np.logical_and(found, there).sum() / (found.sum() + there.sum())


def all_windows_in_one_batch(network: Network, image: Tensor, side: int) -> Tensor:
    windows = image[0].unfold(1, side, 1).unfold(2, side, 1)
    rows, columns = windows.shape[1:3]
    answers = network(windows.reshape(rows * columns, 1, side, side))
    return answers.reshape(rows, columns, 2).permute(2, 0, 1)[None]


RIGHT: dict[str, list[Any]] = {
    "0.1": [[0.08, np.float32(0.5), 1.0]],
    "0.2": [70.0, torch.tensor(70)],
    "0.3": [with_logic],
    "0.4": [all_windows_in_one_batch],
}
