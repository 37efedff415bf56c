"""Plausible wrong answers to the exercises of chapter 8, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def mean(weight: Tensor) -> Tensor:
    return weight.mean(dim=1, keepdim=True)


def red(weight: Tensor) -> Tensor:
    return weight[:, :1]


def without_axis(weight: Tensor) -> Tensor:
    return weight.sum(dim=1)


def brightness(weight: Tensor) -> Tensor:
    shares = torch.tensor([0.299, 0.587, 0.114])
    return torch.einsum("ocij,c->oij", weight, shares)[:, None]


def wrong_axis(weight: Tensor) -> Tensor:
    return weight.sum(dim=0, keepdim=True)


def untouched(weight: Tensor) -> Tensor:
    return weight


def in_place(weight: Tensor) -> Tensor:
    weight[:, 0] += weight[:, 1] + weight[:, 2]
    return weight[:, :1]


def a_layer(weight: Tensor) -> nn.Module:
    layer = nn.Conv2d(1, len(weight), weight.shape[-1], bias=False)
    layer.weight.data = weight.sum(1, keepdim=True)
    return layer


class Bare(nn.Module):
    """Keeps an encoder and calls it: what the wrong answers have in common."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)


class NoGradientOnly(Bare):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder)
        self.encoder.requires_grad_(False)


class EvaluationOnce(NoGradientOnly):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder)
        self.encoder.eval()


class StatisticsOnly(Bare):
    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.encoder.eval()
        return self


class ReturnsNothing(NoGradientOnly):
    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.encoder.eval()


class NeverTraining(NoGradientOnly):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


class MomentumZero(NoGradientOnly):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0


class Detached(Bare):
    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images).detach()


class NoReturn(NoGradientOnly):
    def forward(self, images: Tensor) -> Any:
        self.encoder(images)


TOP = (48, 320, 256)
FULL, THIN = 9 * 240 * 240, 9 * 240 + 240 * 240
WRONG: dict[str, list[tuple[Any, str]]] = {
    "8.1": [
        (((512, 20, 16), TOP), "its stem halves, and a pooling follows at once"),
        (((512, 8, 10), TOP), "Height comes before width"),
        (((1024, 10, 8), TOP), "channels (1024) are not"),
        (((512, 10, 8), (128, 320, 256)), "no 64 channels at full resolution"),
        (((512, 10, 8), (32, 320, 256)), "That is the part from below"),
        (((512, 10, 8), (80, 320, 256)), "Does the up-convolution keep its 64 channels?"),
        (((512, 10, 8), (48, 160, 128)), "It works at full resolution"),
        ((1, 512, 10, 8), "Expected is (bottleneck, last double convolution), 2 parts"),
        ((512, 10), "must be written as (channels, height, width)"),
    ],
    "8.2": [
        ((9 * 240, THIN), "one channel deep"),
        ((FULL + 240, THIN), "has no bias"),
        ((FULL, 9 * 240), "the depthwise one alone"),
        ((FULL, 240 * 240), "the 1×1 convolution alone"),
        ((FULL, FULL + 240 * 240), "A depthwise kernel sees one channel only"),
        ((FULL, THIN / 2), "too small"),
        (FULL, "Expected is (full, depthwise and 1×1)"),
    ],
    "8.3": [
        (mean, "a third of what the repeated image gives"),
        (red, "the red channel's part alone"),
        (without_axis, "the axis of the colors is gone"),
        (brightness, "gets an image that is gray already"),
        (wrong_axis, "over the channels that come out"),
        (untouched, "nothing has changed"),
        (in_place, "has changed its input"),
        (a_layer, "not a layer"),
        (torch.zeros(4, 1, 3, 3), "Give the function itself"),
    ],
    "8.4": [
        (Bare, "running mean"),
        (NoGradientOnly, "drifts, without any gradient"),
        (EvaluationOnce, "running mean"),
        (StatisticsOnly, "has left a gradient in the encoder"),
        (ReturnsNothing, "must return the module itself"),
        (NeverTraining, "must tell the mode that was asked for"),
        (MomentumZero, "depends on the other images of the batch"),
        (Detached, "still ask for gradients"),
        (NoReturn, "returned nothing"),
        (nn.Identity(), "Give the class itself"),
    ],
}


class FrozenAtEveryCall(NoGradientOnly):
    """Does not wait to be told the mode."""

    def forward(self, images: Tensor) -> Tensor:
        self.encoder.eval()
        return self.encoder(images)


class FrozenWithoutGraph(Bare):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder.requires_grad_(False))

    def train(self, mode: bool = True) -> nn.Module:
        self.training = mode
        self.encoder.train(False)
        return self


RIGHT: dict[str, list[Any]] = {
    "8.1": [[torch.Size((512, 10, 8)), list(TOP)]],
    "8.2": [[float(FULL), torch.tensor(THIN)]],
    "8.3": [
        lambda weight: torch.einsum("ocij->oij", weight)[:, None],
        lambda weight: 3 * weight.mean(dim=1, keepdim=True),
        lambda weight: weight[:, :1] + weight[:, 1:2] + weight[:, 2:],
    ],
    "8.4": [FrozenAtEveryCall, FrozenWithoutGraph],
}
