"""Plausible wrong answers to the exercises of chapter 7, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# 7.1: (sides that fit, shape of predict's answer, weights of the last layer).
SIDES, SHAPE, WEIGHTS = (240, 256), (5, 250, 250), 85


def folded(
    convolution: Any,
    normalization: Any,
    *,
    root: bool = True,
    epsilon: float | None = None,
    axis: int = 0,
    own_bias: bool = True,
    mean: bool = True,
    shift: bool = True,
) -> nn.Conv2d:
    """Fold with a fault in one place."""
    epsilon = normalization.eps if epsilon is None else epsilon
    scale = normalization.running_var + epsilon
    scale = normalization.weight / (scale.sqrt() if root else scale)
    layer = nn.Conv2d(4, 4, kernel_size=3, padding=1)
    bias = torch.zeros(4)
    if own_bias and convolution.bias is not None:
        bias = convolution.bias
    if mean:
        bias = bias - normalization.running_mean
    bias = bias * scale
    if shift:
        bias = bias + normalization.bias
    shape = [4 if one == axis else 1 for one in range(4)]
    layer.weight = nn.Parameter((convolution.weight * scale.reshape(shape)).detach())
    layer.bias = nn.Parameter(bias.detach())
    return layer


def no_root(convolution: Any, normalization: Any) -> Any:
    return folded(convolution, normalization, root=False)


def no_epsilon(convolution: Any, normalization: Any) -> Any:
    return folded(convolution, normalization, epsilon=0.0)


def inputs_scaled(convolution: Any, normalization: Any) -> Any:
    return folded(convolution, normalization, axis=1)


def own_bias_forgotten(convolution: Any, normalization: Any) -> Any:
    return folded(convolution, normalization, own_bias=False)


def mean_forgotten(convolution: Any, normalization: Any) -> Any:
    return folded(convolution, normalization, mean=False)


def shift_forgotten(convolution: Any, normalization: Any) -> Any:
    return folded(convolution, normalization, shift=False)


def in_place(convolution: Any, normalization: Any) -> Any:
    new = folded(convolution, normalization)
    convolution.weight = new.weight
    convolution.bias = new.bias
    return convolution


def padding_forgotten(convolution: Any, normalization: Any) -> Any:
    new = folded(convolution, normalization)
    new.padding = (0, 0)
    return new


def both_layers(convolution: Any, normalization: Any) -> Any:
    return nn.Sequential(copy.deepcopy(convolution), copy.deepcopy(normalization))


def _padded(image: Tensor, mode: str = "reflect", *, centered: bool = True) -> tuple[Tensor, Any]:
    rows, columns = -image.shape[1] % 16, -image.shape[2] % 16
    top, left = (rows // 2, columns // 2) if centered else (0, 0)
    padded = F.pad(image[None], (left, columns - left, top, rows - top), mode=mode)
    height, width = image.shape[1:]
    return padded, (..., slice(top, top + height), slice(left, left + width))


def as_it_is(network: Any, image: Tensor) -> Tensor:
    return network(image[None])[0].softmax(dim=0)


def zeros_around(network: Any, image: Tensor) -> Tensor:
    padded, own = _padded(image, "constant")
    return network(padded)[0].softmax(dim=0)[own]


def all_on_one_side(network: Any, image: Tensor) -> Tensor:
    padded, own = _padded(image, centered=False)
    return network(padded)[0].softmax(dim=0)[own]


def not_cut_back(network: Any, image: Tensor) -> Tensor:
    padded, _ = _padded(image)
    return network(padded)[0].softmax(dim=0)


def logits_only(network: Any, image: Tensor) -> Tensor:
    padded, own = _padded(image)
    return network(padded)[0][own]


def softmax_over_rows(network: Any, image: Tensor) -> Tensor:
    padded, own = _padded(image)
    return network(padded)[0].softmax(dim=1)[own]


def resized(network: Any, image: Tensor) -> Tensor:
    side = [length + -length % 16 for length in image.shape[1:]]
    chances = network(F.interpolate(image[None], side)).softmax(dim=1)
    return F.interpolate(chances, image.shape[1:])[0]


def sixteen_more(network: Any, image: Tensor) -> Tensor:
    rows, columns = 16 - image.shape[1] % 16, 16 - image.shape[2] % 16
    padded = F.pad(image[None], (0, columns, 0, rows), mode="reflect")
    return network(padded)[0].softmax(dim=0)[:, : image.shape[1], : image.shape[2]]


def batch_kept(network: Any, image: Tensor) -> Tensor:
    padded, own = _padded(image)
    return network(padded).softmax(dim=1)[own]


def first_channel(picture: Any, colors: Any) -> Any:
    index = np.full(picture.shape[:2], -1)
    for number, color in enumerate(colors):
        index[picture[..., 0] == color[0]] = number
    return index


def any_channel(picture: Any, colors: Any) -> Any:
    index = np.full(picture.shape[:2], -1)
    for number, color in enumerate(colors):
        index[(picture == color).any(axis=-1)] = number
    return index


def sums_of_channels(picture: Any, colors: Any) -> Any:
    index = np.full(picture.shape[:2], -1)
    for number, color in enumerate(colors):
        index[picture.sum(axis=-1) == sum(color)] = number
    return index


def in_sorted_order(picture: Any, colors: Any) -> Any:
    _, index = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    return index.reshape(picture.shape[:2])


def unknown_is_class_0(picture: Any, colors: Any) -> Any:
    index = np.zeros(picture.shape[:2], int)
    for number, color in enumerate(colors):
        index[(picture == color).all(axis=-1)] = number
    return index


def nearest_color(picture: Any, colors: Any) -> Any:
    away = [np.abs(picture.astype(int) - color).sum(axis=-1) for color in colors]
    return np.argmin(away, axis=0)


def one_hot(picture: Any, colors: Any) -> Any:
    return np.stack([(picture == color).all(axis=-1) for color in colors], axis=-1).astype(int)


def floats(picture: Any, colors: Any) -> Any:
    return unknown_is_class_0(picture, colors).astype(float)


def gray(picture: Any, colors: Any) -> Any:
    return picture.mean(axis=-1).astype(np.uint8)


def asserts(picture: Any, colors: Any) -> Any:
    index = first_channel(picture, colors) * 0 - 1
    for number, color in enumerate(colors):
        index[(picture == color).all(axis=-1)] = number
    assert (index >= 0).all()
    return index


WRONG: dict[str, list[tuple[Any, str]]] = {
    "7.1": [
        ((256, SHAPE, WEIGHTS), "the sides that fit are two"),
        (((248, 252), SHAPE, WEIGHTS), "Being even is not enough"),
        (((224, 256), SHAPE, WEIGHTS), "There is a larger one"),
        ((SIDES, (5, 256, 256), WEIGHTS), "belongs to nobody"),
        ((SIDES, (3, 250, 250), WEIGHTS), "3 are the channels of the image"),
        ((SIDES, SHAPE, 80), "Each class has a bias, too"),
        ((SIDES, SHAPE, 725), "Its kernel is 1×1"),
        ((SIDES, SHAPE), "3 parts, and you gave 2"),
    ],
    "7.2": [
        (no_root, "the weights are not right"),
        (no_epsilon, "the weights are not right"),
        (inputs_scaled, "the weights are not right"),
        (own_bias_forgotten, "bias=True) and BatchNorm2d(4): the weights are right, the bias"),
        (mean_forgotten, "bias=False) and BatchNorm2d(4): the weights are right, the bias"),
        (shift_forgotten, "the weights are right, the bias is not"),
        (in_place, "has changed convolution.weight"),
        (padding_forgotten, "expected shape 1×4×6×6, got 1×4×4×4"),
        (both_layers, "a Conv2d is expected"),
    ],
    "7.3": [
        (as_it_is, "stopped with SizeError: a 39x39 image does not fit"),
        (zeros_around, "Expected the image mirrored at its borders"),
        (all_on_one_side, "by as much on both sides"),
        (not_cut_back, "expected shape 3×39×39, got 3×48×48"),
        (logits_only, "expected probabilities, whose sum over the classes of a pixel is 1"),
        (softmax_over_rows, "expected probabilities, whose sum over the classes of a pixel is 1"),
        (resized, "a probability differs from that of predict"),
        (sixteen_more, "was given 48×64. Expected the next multiples of 16, 32×48"),
        (batch_kept, "expected shape 3×32×48, got 1×3×32×48"),
    ],
    "7.4": [
        (first_channel, "has index"),
        (any_channel, "has index"),
        (sums_of_channels, "has index"),
        (in_sorted_order, "in the list, and got"),
        (unknown_is_class_0, "it became class 0 in silence"),
        (nearest_color, "it became class"),
        (one_hot, "shape 12×17, got 12×17×4"),
        (floats, "an array of float64 came"),
        (gray, "has index"),
        (asserts, "expected a ValueError, got AssertionError"),
    ],
}


def fold_into_a_new_layer(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> nn.Conv2d:
    folded = nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        zero = torch.zeros(1, 4, 1, 1) if convolution.bias is None else convolution.bias
        shift = normalization(zero.reshape(1, 4, 1, 1)).flatten()
        scale = normalization(torch.ones(1, 4, 1, 1)) - normalization(torch.zeros(1, 4, 1, 1))
        folded.weight.copy_(convolution.weight * scale.reshape(4, 1, 1, 1))
        folded.bias.copy_(shift)
    return folded


def answer_with_numpy(network: Any, image: Tensor) -> Tensor:
    lacking = [-length % 16 for length in image.shape[1:]]
    sides = [(0, 0), *((one // 2, one - one // 2) for one in lacking)]
    mirrored = torch.from_numpy(np.pad(image.numpy(), sides, mode="reflect"))
    with torch.no_grad():
        chances = network(mirrored[None]).softmax(dim=1)[0]
    top, left = lacking[0] // 2, lacking[1] // 2
    return chances[:, top:, left:][:, : image.shape[1], : image.shape[2]]


def indices_by_lookup(picture: Any, colors: Any) -> Any:
    numbers = {tuple(color): number for number, color in enumerate(colors)}
    try:
        flat = [numbers[tuple(pixel)] for pixel in picture.reshape(-1, 3).tolist()]
    except KeyError as error:
        raise ValueError(f"no color of the list: {error}") from None
    return np.array(flat, np.uint8).reshape(picture.shape[:2])


RIGHT: dict[str, list[Any]] = {
    "7.1": [[[240, 256], [5, 250, 250], 85.0]],
    "7.2": [fold_into_a_new_layer],
    "7.3": [answer_with_numpy],
    "7.4": [indices_by_lookup],
}
