"""Plausible wrong answers to the exercises of chapter 3, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial import DoubleConvolution, UpSampling


def too_small(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    rows, columns = small.shape
    large = torch.zeros(rows * stride, columns * stride)
    height, width = stencil.shape
    for row in range(rows):
        for column in range(columns):
            place = large[row * stride :, column * stride :][:height, :width]
            place += (small[row, column] * stencil)[: place.shape[0], : place.shape[1]]
    return large


def overwriting(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    rows, columns = small.shape
    height, width = stencil.shape
    large = torch.zeros((rows - 1) * stride + height, (columns - 1) * stride + width)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            large[top : top + height, left : left + width] = small[row, column] * stencil
    return large


def always_2x2(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    large = torch.zeros(2 * small.shape[0], 2 * small.shape[1])
    for row in range(small.shape[0]):
        for column in range(small.shape[1]):
            square = large[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            square += small[row, column] * stencil
    return large


def turned(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    flipped = stencil.flip(0, 1)
    return F.conv_transpose2d(small[None, None], flipped[None, None], stride=stride)[0, 0]


def with_four_axes(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    return F.conv_transpose2d(small[None, None], stencil[None, None], stride=stride)


def gathering(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    return F.conv2d(small[None, None], stencil[None, None], stride=stride)[0, 0]


def as_array(small: Tensor, stencil: Tensor, stride: int) -> np.ndarray:
    return F.conv_transpose2d(small[None, None], stencil[None, None], stride=stride)[0, 0].numpy()


def scaling_its_input(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    stencil *= 1.5
    return F.conv_transpose2d(small[None, None], stencil[None, None], stride=stride)[0, 0]


def without_return(small: Tensor, stencil: Tensor, stride: int) -> None:
    large = torch.zeros(small.shape[0] * stride, small.shape[1] * stride)
    large += 1


def without_stride(small: Tensor, stencil: Tensor) -> Tensor:
    return F.conv_transpose2d(small[None, None], stencil[None, None], stride=2)[0, 0]


def outer(*line: float) -> Tensor:
    return torch.outer(torch.tensor(line), torch.tensor(line))


class Block(nn.Module):
    """The right answer; what follows differs from it in one thing each."""

    corners = False
    mode = "bilinear"
    halved = True
    skip_first = False

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = in_channels // 2
        options = {"align_corners": self.corners} if self.mode == "bilinear" else {}
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode=self.mode, **options),
            nn.Conv2d(in_channels, half if self.halved else in_channels, kernel_size=1),
        )
        joined = in_channels if self.halved else in_channels + half
        self.conv = DoubleConvolution(joined, out_channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        maps = (x2, self.up(x1)) if self.skip_first else (self.up(x1), x2)
        return self.conv(torch.cat(maps, dim=1))


class Corners(Block):
    corners = True


class Nearest(Block):
    mode = "nearest"


class NotHalved(Block):
    halved = False


class SkipFirst(Block):
    skip_first = True


class NoHalving(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.conv = DoubleConvolution(in_channels, out_channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.conv(torch.cat((self.up(x1), x2), dim=1))


class ThreeByThree(Block):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.up[1] = nn.Conv2d(in_channels, in_channels // 2, kernel_size=3, padding=1)


class Adding(Block):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.conv = DoubleConvolution(in_channels // 2, out_channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.conv(self.up(x1) + x2)


class Pair(Block):
    def forward(self, x1: Tensor, x2: Tensor) -> Any:
        return self.up(x1), x2


class OneArgument(Block):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.up(x)


class SkipForgotten(Block):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.conv = DoubleConvolution(in_channels // 2, out_channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.conv(self.up(x1))


class Wrapped(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = UpSampling(in_channels, out_channels, upsampling="bilinear")

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.block(x1, x2)


class NoBase:
    def __init__(self, in_channels: int, out_channels: int) -> None:
        pass


def asking_pytorch(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    return F.conv_transpose2d(small[None, None], stencil[None, None], stride=stride)[0, 0]


def by_products(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    rows, columns = small.shape
    height, width = stencil.shape
    large = small.new_zeros((rows - 1) * stride + height, (columns - 1) * stride + width).double()
    for row in range(height):
        for column in range(width):
            shifted = large[row:, column:][: stride * rows : stride, : stride * columns : stride]
            shifted += small * stencil[row, column]
    return large


WRONG: dict[str, list[tuple[Any, str]]] = {
    "3.1": [
        (((64, 40, 60), 8224), "height and width are right, channels (64) are not"),
        (((32, 20, 30), 8224), "That is the size that goes in"),
        (((32, 41, 61), 8224), "Do two neighboring stencils overlap?"),
        (((1, 32, 40, 60), 8224), "Leave the batch out"),
        (((32, 40, 60), 8192), "too small. Those are the weights."),
        (((32, 40, 60), 8256), "for a channel that goes in, or one for a channel that comes out?"),
        (((32, 40, 60), 18464), "stencils of 3×3"),
        (8224, "Expected is (shape, parameters), and you gave 8224"),
        ((32, 40, 60), "2 parts, and you gave 3"),
        (("32×40×60", 8224), "must be written as (channels, height, width)"),
        (((32.0, 40.0, 60.0), 8224), "must be whole numbers"),
    ],
    "3.2": [
        (too_small, "expected shape 5×5, got 4×4"),
        (overwriting, "where stencils meet, only the last one is left"),
        (always_2x2, "stopped with RuntimeError"),
        (turned, "turned by 180 degrees"),
        (with_four_axes, "expected shape 4×4, got 1×1×4×4"),
        (gathering, "expected shape 4×4, got 1×1"),
        (as_array, "a torch tensor is expected, and a numpy array of shape 4×4 came"),
        (scaling_its_input, "has changed its input"),
        (asking_pytorch, "PyTorch's own layer did the work"),
        (without_return, "returned nothing. Is a `return` missing?"),
        (without_stride, "yours is without_stride(small, stencil)"),
        (torch.zeros(4, 4), "Give the function itself, without calling it"),
    ],
    "3.3": [
        ((torch.ones(2, 2) / 4, ...), "becomes [[0.25, 0.25], [0.25, 0.25]]"),
        ((torch.eye(2), ...), "a value of 1 becomes [[1, 0]"),
        ((torch.ones(4), ...), "repeating: expected shape 2×2, got 4"),
        (([[1, 1], [1, 1]], ...), "make a tensor of it"),
        ((torch.ones(2, 2), outer(0.25, 0.75, 0.75)), "bilinear: expected shape 4×4, got 3×3"),
        ((torch.ones(2, 2), outer(1.0, 3.0, 3.0, 1.0)), "should stay 1, and becomes 16"),
        ((torch.ones(2, 2), outer(0.25, 0.75, 0.75, 0.25) / 4), "and becomes 0.25"),
        ((torch.ones(2, 2), outer(0.5, 0.5, 0.5, 0.5)), "beside it and 0.25 to the"),
        ((torch.ones(2, 2), outer(0.75, 0.25, 0.25, 0.75)), "0.0625 to a pixel beside it"),
        ((torch.ones(2, 2), torch.ones(4, 4) / 16), "and becomes 0.25"),
        ((torch.ones(2, 2), outer(0.2, 0.8, 0.8, 0.2)), "values differ"),
        ((np.ones((2, 2)), ...), "a torch tensor is expected, and a numpy array"),
    ],
    "3.4": [
        (Corners, "align_corners=True"),
        (Nearest, "enlarged by repeating values"),
        (NotHalved, "got 1,056: 252 too many. Does the 1×1 convolution halve the channels?"),
        (NoHalving, "to have 8 channels, but got 12 channels"),
        (SkipFirst, "the skip comes first in your concatenation"),
        (ThreeByThree, "got 1,060: 256 too many. Is the convolution that halves the channels 1×1?"),
        (Wrapped, "is made from UpSampling"),
        (Adding, "added to the upsampled map, not concatenated"),
        (SkipForgotten, "another skip x2 gives the same result"),
        (Pair, "a torch tensor is expected, and a tuple came"),
        (OneArgument, "stopped with TypeError"),
        (UpSampling, "contains a transposed convolution"),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), "Give the class itself, without parentheses"),
        (NoBase, "NoBase does not inherit from Module"),
    ],
}


class InForward(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.both = DoubleConvolution(in_channels, out_channels)
        self.halve = nn.Conv2d(in_channels, in_channels // 2, 1)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = F.interpolate(x1, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.both(torch.cat((self.halve(x1), x2), 1))


RIGHT: dict[str, list[Any]] = {
    "3.1": [[torch.Size([32, 40, 60]), 8224]],
    "3.2": [by_products],
    "3.3": [
        (torch.ones(2, 2, dtype=torch.long), outer(0.25, 0.75, 0.75, 0.25)[None, None]),
    ],
    "3.4": [InForward, Block],
}
