"""Exercises of chapter 3: Expansive path."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unet_tutorial.blocks import UpSampling
from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    exercise,
    expect_answer,
    expect_class,
    expect_close,
    expect_function,
    expect_guess,
    expect_number,
    expect_parameters,
    expect_parts,
    expect_shape,
    give_weights,
    recognize,
)


@exercise(
    "3.1",
    "Shape and size of an up-convolution",
    answer="a pair: a shape (channels, height, width), and the number of weights and biases",
    hint="The arguments say how many channels go in and come out. How many stencils are there, and "
    "of how many weights each?",
    shown="A stencil of four weights for each pair of channels, and a bias for each channel that "
    "comes out; the size of the map plays no part in the second number.",
)
def _(answer: Any) -> None:
    shape, parameters = expect_parts(answer, ("shape", "parameters"))
    expect_guess(
        shape,
        (32, 40, 60),
        "the large map",
        mistakes={
            (32, 20, 30): "That is the size that goes in.",
            (32, 10, 15): "That is what pooling would do.",
            (32, 41, 61): "Do two neighboring stencils overlap?",
            (30, 40, 64): "Channels stand first in PyTorch.",
        },
    )
    expect_number(
        parameters,
        64 * 32 * 4 + 32,
        "the number of parameters",
        mistakes={
            64 * 32 * 4: "Those are the weights. Does the layer have nothing else?",
            64 * 32 * 4 + 64: "How many biases are there: one for a channel that goes in, or one "
            "for a channel that comes out?",
            64 * 32 * 9 + 32: "That would be stencils of 3×3.",
            64 * 32 + 32: "That is one weight for a pair of channels, as in a 1×1 convolution.",
            64 * 4 + 32: "Does every channel that comes out get a stencil of its own for each of "
            "the 64?",
            32 * 4 + 32: "Each channel that comes out has one stencil for every channel that goes "
            "in.",
        },
    )


def _scatter(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    return F.conv_transpose2d(small[None, None], stencil[None, None], stride=stride)[0, 0]


def _overwrite(small: Tensor, stencil: Tensor, stride: int) -> Tensor:
    """Lay stencils over one another instead of adding them."""
    large = torch.zeros_like(_scatter(small, stencil, stride))
    height, width = stencil.shape
    for row in range(small.shape[0]):
        for column in range(small.shape[1]):
            top, left = row * stride, column * stride
            large[top : top + height, left : left + width] = small[row, column] * stencil
    return large


@exercise(
    "3.2",
    "A transposed convolution, written as a scatter",
    answer="a function scatter(small, stencil, stride) that returns the large map, a tensor of two "
    "axes",
    hint="Begin with zeros. In which row is the last stencil set down, and in which does it end? "
    "Draw 2 rows with kernel 3 and stride 1 on paper, and mark the rows where two stencils meet.",
    shown="The same numbers as F.conv_transpose2d, for any kernel and stride. Try "
    "scatter(torch.ones(4, 4), torch.ones(3, 3), 2): it counts how many stencils meet.",
)
def _(answer: Any) -> None:
    scatter = expect_function(answer, "scatter(small, stencil, stride)")
    chapter = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0, -1.0], [0.0, 2.0]]), 2
    others = [
        (torch.ones(2, 2), torch.ones(3, 3), 2),
        (torch.rand(3, 4), torch.rand(3, 3), 2),
        (torch.rand(4, 2), torch.rand(2, 3), 1),
        (torch.rand(2, 5), torch.rand(2, 2), 3),
    ]
    for small, stencil, stride in (chapter, *others):
        sizes = "small of {}×{}, stencil of {}×{}".format(*small.shape, *stencil.shape)
        tried = f"scatter(small, stencil, {stride}), {sizes}"
        with _Asked() as asked:
            large = call(scatter, small, stencil, stride, tried=tried)
        right = _scatter(small, stencil, stride)
        expect_shape(large, right.shape, tried)
        mistakes = {
            "where stencils meet, only the last one is left. What becomes of a pixel that two "
            "of them reach?": _overwrite(small, stencil, stride),
            "your stencils are turned by 180 degrees: the upper left weight belongs on the upper "
            "left.": _scatter(small, stencil.flip(0, 1), stride),
            "your stencils are transposed: rows and columns are exchanged.": _scatter(
                small, stencil.T, stride
            )
            if stencil.shape[0] == stencil.shape[1]
            else torch.zeros(0),
        }
        recognize(
            large,
            {said: wrong for said, wrong in mistakes.items() if not _equal(wrong, right)},
            tried,
        )
        expect_close(large, right, tried)
        if asked.names & {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}:
            raise Wrong(
                f"{tried}: PyTorch's own layer did the work. Set the stencils down yourself."
            )


class _Asked(TorchFunctionMode):
    """Note which of PyTorch's functions are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.add(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other)


def _spread(weights: list[float]) -> Tensor:
    line = torch.tensor(weights)
    return line[:, None] * line


@exercise(
    "3.3",
    "Stencils that interpolate",
    answer="a pair of tensors: `repeating` of 2×2 and `bilinear` of 4×4",
    hint="One direction is enough to think about, the stencil is a product of two. Enlarged, the "
    "line 0, 1, 2, 3 of this chapter reads 0.25, 0.75, 1.25, … in its middle: which share does a "
    "value have in the two pixels of its own, and in the next ones?",
    shown="Interpolation is a transposed convolution whose weights are fixed. So a trained layer "
    "could have become one, and with kernel 4 every pixel is met by four stencils: no checkerboard "
    "of counts.",
)
def _(answer: Any) -> None:
    repeating, bilinear = expect_parts(answer, ("repeating", "bilinear"))
    small = torch.rand(1, 1, 5, 6)
    tried = "repeating with stride 2"
    stencil = _stencil(repeating, "repeating", 2)
    large = F.conv_transpose2d(small, stencil, stride=2)
    right = F.interpolate(small, scale_factor=2, mode="nearest")
    if not torch.allclose(large, right):
        made = _four(stencil)
        raise Wrong(f"{tried}: a value of 1 becomes {made}. Is it repeated four times, unchanged?")
    tried = "bilinear with stride 2 and padding 1"
    stencil = _stencil(bilinear, "bilinear", 4)
    large = F.conv_transpose2d(small, stencil, stride=2, padding=1)
    right = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    inside = (..., slice(2, -2), slice(2, -2))
    flat = F.conv_transpose2d(torch.ones(1, 1, 5, 6), stencil, stride=2, padding=1)[inside]
    if not torch.allclose(flat, torch.ones_like(flat), atol=1e-4):
        values = sorted({round(value, 3) for value in flat.flatten().tolist()})
        shown = ", ".join(f"{value:g}" for value in values[:6])
        raise Wrong(
            f"{tried}: of a flat map of ones the inside should stay 1, and becomes {shown}. Add up "
            "the weights that meet on one pixel."
        )
    near, far = stencil[0, 0, 1, 1].item(), stencil[0, 0, 0, 0].item()
    if near <= far:
        raise Wrong(
            f"{tried}: a value of 1 gives {near:g} to a pixel beside it and {far:g} to the "
            "farthest one. Which of the two should get the larger share?"
        )
    expect_close(large[inside], right[inside], f"{tried}, away from the border", tolerance=1e-4)


def _stencil(value: Any, name: str, side: int) -> Tensor:
    expect_answer(value, name)
    if isinstance(value, list | tuple):
        raise Wrong(f"{name} is a list: make a tensor of it, torch.tensor([[…], …]).")
    shape = tuple(getattr(value, "shape", ()))
    if isinstance(value, Tensor) and shape == (1, 1, side, side):
        value = value[0, 0]
    return expect_shape(value, (side, side), name).detach().float()[None, None]


def _four(stencil: Tensor) -> str:
    rows = ["[" + ", ".join(f"{v:g}" for v in row) + "]" for row in stencil[0, 0].tolist()]
    return "[" + ", ".join(rows) + "]"


@exercise(
    "3.4",
    "UpSampling with bilinear upsampling",
    answer="a class BilinearUpSampling(in_channels, out_channels) whose forward takes (x1, x2)",
    hint="Only self.up changes: nn.Sequential of an nn.Upsample, with all three of its arguments "
    "named, and a convolution. Interpolation keeps all channels; how many must come out, so that "
    "together with the skip there are in_channels again?",
    shown='Weight for weight the package\'s UpSampling(…, upsampling="bilinear"). Because only '
    "self.up differs from the article's block, either fits in the same place of the U.",
)
def _(answer: Any) -> None:
    block_class = expect_class(answer, "BilinearUpSampling(in_channels, out_channels)")
    made = "BilinearUpSampling(8, 6)"
    block = call(block_class, 8, 6, tried=made)
    reference = UpSampling(8, 6, upsampling="bilinear")
    below, skip = torch.rand(2, 8, 5, 7), torch.rand(2, 4, 10, 14)
    tried = f"{made}(x1, x2), x1 of 2×8×5×7 and x2 of 2×4×10×14"
    if any(isinstance(part, torch.nn.ConvTranspose2d) for part in block.modules()):
        raise Wrong(
            f"{made} contains a transposed convolution: interpolation is to take its place."
        )
    if any(isinstance(part, UpSampling) for part in block.modules()):
        raise Wrong(f"{made} is made from UpSampling, which is what you are to write yourself.")
    result = call(block, below, skip, tried=tried)
    expect_shape(result, (2, 6, 10, 14), tried)
    other = call(block, below, skip + 1, tried=tried)
    if isinstance(other, Tensor) and torch.equal(result, other):
        raise Wrong(f"{tried}: another skip x2 gives the same result. Where is it joined?")
    expect_parameters(
        block,
        sum(p.numel() for p in reference.parameters()),
        made,
        mistakes={
            588: "That fits a skip that is added to the upsampled map, not concatenated with it.",
            1056: "Does the 1×1 convolution halve the channels?",
            984: "Is there a 1×1 convolution that halves the channels before the skip joins?",
            1060: "Is the convolution that halves the channels 1×1?",
            800: "The 1×1 convolution has a bias.",
            474: "After the skip has joined comes a double convolution, not a single one.",
        },
    )
    give_weights(reference, block, made)
    with torch.no_grad():
        right = reference(below, skip)
        halve = reference.up.get_submodule("1")
        corners = halve(F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=True))
        nearest = halve(F.interpolate(below, scale_factor=2, mode="nearest"))
        normal = reference.up(below)
        mistakes = {
            "the skip comes first in your concatenation; the code article puts the upsampled map "
            "first.": reference.conv(torch.cat((skip, normal), dim=1)),
            "the corner pixels of your maps coincide, as with align_corners=True: then the step "
            "depends on the size of the image.": reference.conv(torch.cat((corners, skip), dim=1)),
            "your map is enlarged by repeating values, not by bilinear interpolation.": (
                reference.conv(torch.cat((nearest, skip), dim=1))
            ),
        }
    recognize(result, mistakes, tried)
    expect_close(result, right, tried)
