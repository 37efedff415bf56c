"""Exercises of chapter 1: Contracting path."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial.blocks import DoubleConvolution, DownSampling
from unet_tutorial.exercises._exercise import (
    Unanswered,
    Wrong,
    call,
    describe,
    exercise,
    expect_class,
    expect_close,
    expect_function,
    expect_guess,
    expect_parameters,
    expect_parts,
    expect_shape,
    give_weights,
    recognize,
)


@exercise(
    "1.1",
    "Shapes of two steps down",
    answer="four shapes (channels, height, width): down1, pool1, down2, pool2",
    hint="Each block first convolves, with padding, and then pools. What does a convolution do to "
    "the channels, and what to height and width? What does pooling do to each?",
    shown="Convolutions change the channels, poolings the size. The first of each pair is the one "
    "that waits for the skip connection.",
)
def _(answer: Any) -> None:
    names = ("down1", "pool1", "down2", "pool2")
    right = ((32, 96, 160), (32, 48, 80), (64, 48, 80), (64, 24, 40))
    mistakes: dict[tuple[int, ...], str] = {
        (32, 92, 156): "These convolutions are padded.",
        (3, 96, 160): "The block turns 3 channels into 32.",
        (64, 48, 80): "Pooling keeps the channels.",
        (128, 24, 40): "Pooling keeps the channels.",
        (64, 96, 160): "The second block gets what the first one has pooled.",
        (32, 48, 80): "The second block turns 32 channels into 64.",
    }
    for name, shape, should in zip(names, expect_parts(answer, names), right, strict=True):
        expect_guess(shape, should, name, mistakes=mistakes)


@exercise(
    "1.2",
    "A convolution by hand, everywhere",
    answer="a function convolve(image, weights) that returns a tensor of two axes",
    hint="The cell with by_hand computes one place. At how many places does the square of weights "
    "lie wholly inside the image? Give the image and the weights other sizes than 5×6 and 3×3.",
    shown="The same as F.conv2d: what libraries call convolution does not turn the weights around, "
    "as mathematics does.",
)
def _(answer: Any) -> None:
    convolve = expect_function(answer, "convolve(image, weights)")
    edge = torch.tensor([[1, 1, 1, 5, 5, 5]] * 5).float()
    cases = [
        (edge, torch.tensor([[-1, 0, 1]] * 3).float()),
        (torch.rand(6, 6), torch.rand(3, 3)),
        (torch.rand(5, 8), torch.rand(2, 2)),
        (torch.rand(8, 7), torch.rand(3, 5)),
    ]
    for image, weights in cases:
        sizes = "image of {}×{}, weights of {}×{}".format(*image.shape, *weights.shape)
        tried = f"convolve(image, weights), {sizes}"
        result = call(convolve, image, weights, tried=tried)
        right = F.conv2d(image[None, None], weights[None, None])[0, 0]
        expect_shape(result, right.shape, tried)
        turned = F.conv2d(image[None, None], weights.flip(0, 1)[None, None])[0, 0]
        recognize(
            result,
            {
                "your weights are turned by 180 degrees, as in the mathematicians' convolution; "
                "the upper left weight belongs to the upper left pixel.": turned,
                "you have divided by the number of weights; a convolution adds up.": right
                / weights.numel(),
            },
            tried,
        )
        expect_close(result, right, tried)


def _randomize(block: nn.Module) -> None:
    """Make weights and biases such that none can be mistaken for another, or for 0 or 1."""
    with torch.no_grad():
        for weights in block.parameters():
            weights.uniform_(-0.5, 0.7)


@exercise(
    "1.3",
    "The notes' double convolution",
    answer="a class NotesDoubleConvolution(in_channels, out_channels)",
    hint="Three layers, twice. The normalization follows the convolution at once; what would it do "
    "to a bias?",
    shown='Weight for weight the package\'s DoubleConvolution(…, norm="batch").',
)
def _(answer: Any) -> None:
    block_class = expect_class(answer, "NotesDoubleConvolution(in_channels, out_channels)")
    made = "NotesDoubleConvolution(3, 6)"
    block = call(block_class, 3, 6, tried=made)
    reference = DoubleConvolution(3, 6, norm="batch")
    x = torch.rand(2, 3, 9, 12)
    tried = f"{made}(x), x of 2×3×9×12"
    expect_shape(call(block, x, tried=tried), (2, 6, 9, 12), tried)
    expect_parameters(
        block,
        sum(p.numel() for p in reference.parameters()),
        made,
        mistakes={
            486 + 24 + 12: "Do the convolutions still have their biases?",
            486 + 24 + 6: "Does one of the convolutions still have its bias?",
            486: "Where are the normalizations?",
            486 + 12: "That is the article's block, or one with a single normalization.",
            162 + 12: "Is there only one convolution?",
            324 + 162 + 24 + 324: "Is there one convolution too many?",
        },
    )
    _randomize(block)
    result = call(block, x, tried=tried)
    give_weights(reference, block, made)
    with torch.no_grad():
        right = reference(x)
        first, norm1, _, second, norm2, _ = reference.conv_block
        late = norm2(F.relu(second(norm1(F.relu(first(x))))))
        mistakes = {
            "the normalization stands behind the ReLU; the notes put it before.": late,
            "the last ReLU is missing.": norm2(second(F.relu(norm1(first(x))))),
            "the ReLU between the two is missing.": F.relu(norm2(second(norm1(first(x))))),
            "there is no ReLU at all.": norm2(second(norm1(first(x)))),
        }
    recognize(result, mistakes, tried)
    expect_close(result, right, tried, tolerance=1e-3)


@exercise(
    "1.4",
    "A convolution in the place of pooling",
    answer="a class StridingDownSampling(in_channels, out_channels) that returns (down, pool)",
    hint="A subclass inherits all of DownSampling. Which one of the attributes that its __init__ "
    "has set must become another layer?",
    shown="Unlike the pooling, it has weights, and can give each of the four places its own: it "
    "could learn to tell where in the square something was, at the price of a channel for it.",
)
def _(answer: Any) -> None:
    block_class = expect_class(answer, "StridingDownSampling(in_channels, out_channels)")
    made = "StridingDownSampling(3, 6)"
    block = call(block_class, 3, 6, tried=made)
    pooling = any(isinstance(part, nn.MaxPool2d) for part in block.modules())
    if pooling and block_class is not DownSampling:
        raise Unanswered("So far it has max pooling.")
    reference = DownSampling(3, 6)
    reference.pool = nn.Conv2d(6, 6, kernel_size=2, stride=2)  # type: ignore[assignment]
    x = torch.rand(2, 3, 8, 12)
    tried = f"{made}(x), x of 2×3×8×12"

    def run() -> tuple[Tensor, Tensor]:
        pair = call(block, x, tried=tried)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Wrong(f"{tried}: two tensors are expected, down and pool; {describe(pair)} came.")
        down = expect_shape(pair[0], (2, 6, 8, 12), f"{tried}, down")
        return down, expect_shape(pair[1], (2, 6, 4, 6), f"{tried}, pool")

    run()
    expect_parameters(
        block,
        sum(p.numel() for p in reference.parameters()),
        made,
        mistakes={
            498: "So many has the block with max pooling.",
            498 + 6 * 6 * 9 + 6: "Is the kernel 3×3? The pooling looked at squares of 2×2.",
            498 + 6 * 6 * 4: "Is a bias missing?",
            498 + 6 * 4 + 6: "Does each channel see only itself? A convolution sees all of them.",
            498 + 3 * 6 * 4 + 6: "Does the striding convolution look at x? It is to look at down.",
        },
    )
    _randomize(block)
    with torch.no_grad():
        for weights in block.parameters():
            if weights.ndim == 1:  # three biases of one shape, whose order is the reader's
                weights.zero_()
    down, pool = run()
    give_weights(reference, block, made)
    with torch.no_grad():
        right_down, right_pool = reference(x)
    expect_close(down, right_down, f"{tried}, down", tolerance=1e-3)
    recognize(pool, {"a ReLU follows your striding convolution.": F.relu(right_pool)}, tried)
    expect_close(pool, right_pool, f"{tried}, pool", tolerance=1e-3)
