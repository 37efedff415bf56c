"""Plausible wrong answers to the exercises of chapter 1, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial import DoubleConvolution, DownSampling


def flipped(image: Tensor, weights: Tensor) -> Tensor:
    return F.conv2d(image[None, None], weights.flip(0, 1)[None, None])[0, 0]


def padded(image: Tensor, weights: Tensor) -> Tensor:
    return F.conv2d(image[None, None], weights[None, None], padding="same")[0, 0]


def three_by_three_only(image: Tensor, weights: Tensor) -> Tensor:
    height, width = image.shape
    result = torch.zeros(height - 2, width - 2)
    for row in range(height - 2):
        for column in range(width - 2):
            result[row, column] = (image[row : row + 3, column : column + 3] * weights).sum()
    return result


def averaging(image: Tensor, weights: Tensor) -> Tensor:
    return F.conv2d(image[None, None], weights[None, None])[0, 0] / weights.numel()


def one_place(image: Tensor, weights: Tensor) -> Tensor:
    return (image[:3, :3] * weights).sum()


def nested_lists(image: Tensor, weights: Tensor) -> list[list[float]]:
    return F.conv2d(image[None, None], weights[None, None])[0, 0].tolist()


def off_by_one(image: Tensor, weights: Tensor) -> Tensor:
    height, width = weights.shape
    result = torch.zeros(image.shape[0] - height, image.shape[1] - width)
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            square = image[row : row + height, column : column + width]
            result[row, column] = (square * weights).sum()
    return result


def writing_into_the_image(image: Tensor, weights: Tensor) -> Tensor:
    result = F.conv2d(image[None, None], weights[None, None])[0, 0]
    image[: result.shape[0], : result.shape[1]] = result
    return result


class Layers(nn.Module):
    """Convolution, normalization, ReLU as the letters say; the right one is CNRCNR."""

    letters = "CNRCNR"
    bias = False
    padding = 1

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for letter in self.letters:
            if letter == "C":
                options: Any = {"padding": self.padding, "bias": self.bias}
                layers.append(nn.Conv2d(in_channels, out_channels, 3, **options))
                in_channels = out_channels
            else:
                layers.append(nn.ReLU() if letter == "R" else nn.BatchNorm2d(out_channels))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class WithBias(Layers):
    bias = True


class Unpadded(Layers):
    padding = 0


class ReluFirst(Layers):
    letters = "CRNCRN"


class NoRelu(Layers):
    letters = "CNCN"


class LastReluMissing(Layers):
    letters = "CNRCN"


class NoNormalization(Layers):
    letters = "CRCR"


class OneNormalization(Layers):
    letters = "CRCNR"


class Once(Layers):
    letters = "CNR"


class NoForward(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 3)


class NoSuper(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        self.layer = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Striding(DownSampling):
    """The right answer; what follows differs from it in one thing each."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.pool = self.striding(in_channels, out_channels)

    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Conv2d(out_channels, out_channels, kernel_size=2, stride=2)


class NoStride(Striding):
    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Conv2d(out_channels, out_channels, kernel_size=2)


class ThreeByThree(Striding):
    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)


class EachForItself(Striding):
    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Conv2d(out_channels, out_channels, 2, stride=2, groups=out_channels)


class WithRelu(Striding):
    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Sequential(nn.Conv2d(out_channels, out_channels, 2, stride=2), nn.ReLU())


class Doubling(Striding):
    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Conv2d(out_channels, 2 * out_channels, kernel_size=2, stride=2)


class PoolsX(Striding):
    def striding(self, in_channels: int, out_channels: int) -> Any:
        return nn.Conv2d(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x), self.pool(x)


class PoolOnly(Striding):
    def forward(self, x: Tensor) -> Any:
        return self.pool(self.conv(x))


class OtherWayRound(Striding):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        down, pool = super().forward(x)
        return pool, down


WRONG: dict[str, list[tuple[Any, str]]] = {
    "1.1": [
        (((3, 96, 160), ..., ..., ...), "The block turns 3 channels into 32"),
        (((32, 92, 156), ..., ..., ...), "These convolutions are padded"),
        (((32, 96, 160), (64, 48, 80), ..., ...), "Pooling keeps the channels"),
        (((32, 96, 160), (32, 96, 80), ..., ...), "channels and width are right, height (96)"),
        (((32, 96, 160), (32, 48, 80), (64, 96, 160), ...), "what the first one has pooled"),
        (((32, 96, 160), (32, 48, 80), (64, 48, 80), (128, 24, 40)), "channels (128) are not"),
        (((1, 32, 96, 160), ..., ..., ...), "Leave the batch out"),
        ((32, 96, 160), "4 parts, and you gave 3"),
    ],
    "1.2": [
        (flipped, "your weights are turned by 180 degrees"),
        (padded, "expected shape 3×4, got 5×6"),
        (three_by_three_only, "stopped with RuntimeError: The size of tensor a (3) must match"),
        (averaging, "divided by the number of weights"),
        (one_place, "expected shape 3×4, got no axes"),
        (nested_lists, "a torch tensor is expected"),
        (off_by_one, "expected shape 3×4, got 2×3"),
        (writing_into_the_image, "has changed its input"),
        (F.conv2d, "stopped with RuntimeError"),
    ],
    "1.3": [
        (WithBias, "12 too many. Do the convolutions still have their biases?"),
        (Unpadded, "expected shape 2×6×9×12, got 2×6×5×8"),
        (ReluFirst, "the normalization stands behind the ReLU"),
        (NoRelu, "there is no ReLU at all"),
        (LastReluMissing, "the last ReLU is missing"),
        (NoNormalization, "Where are the normalizations?"),
        (OneNormalization, "12 too few"),
        (Once, "Is there only one convolution?"),
        (DoubleConvolution, "12 too few. That is the article's block"),
        (DoubleConvolution(3, 6, norm="batch"), "Give the class itself, without parentheses"),
        (NoForward, "stopped with NotImplementedError"),
        (NoSuper, "cannot assign module before Module.__init__() call"),
    ],
    "1.4": [
        (DownSampling, "too few. So many has the block with max pooling"),
        (NoStride, "pool: expected shape 2×6×4×6, got 2×6×7×11"),
        (ThreeByThree, "Is the kernel 3×3?"),
        (EachForItself, "Does each channel see only itself?"),
        (WithRelu, "a ReLU follows your striding convolution"),
        (Doubling, "pool: expected shape 2×6×4×6, got 2×12×4×6"),
        (PoolsX, "Does the striding convolution look at x?"),
        (PoolOnly, "two tensors are expected, down and pool; a tensor of shape 2×6×4×6 came"),
        (OtherWayRound, "down: expected shape 2×6×8×12, got 2×6×4×6"),
        (16_448, "The class StridingDownSampling(in_channels, out_channels) is expected"),
    ],
}


class OneByOne(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding="same", bias=False)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.first(x)))
        return self.norms[1](self.second(x)).clamp(min=0)


class PoolFirst(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(out_channels, out_channels, 2, stride=2)
        self.block = DoubleConvolution(in_channels, out_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.block(x)
        return [x, self.shrink(x)]


RIGHT: dict[str, list[Any]] = {
    "1.1": [[torch.Size([32, 96, 160]), [32, 48, 80], (64, 48, 80), (64, 24, 40)]],
    "1.2": [
        lambda image, weights: (
            image.unfold(0, weights.shape[0], 1).unfold(1, weights.shape[1], 1) * weights
        ).sum((2, 3))
    ],
    "1.3": [OneByOne],
    "1.4": [PoolFirst, Striding],
}
