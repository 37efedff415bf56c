"""Exercises of chapter 7: using a trained network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    describe,
    exercise,
    expect_function,
    expect_guess,
    expect_number,
    expect_parts,
    expect_shape,
    shape_text,
    what_went_wrong,
)
from unet_tutorial.inference import predict
from unet_tutorial.unet import UNet


@exercise(
    "7.1",
    "Five classes, and a size that does not fit",
    answer="a triple: the two nearest sides that fit, the shape (classes, height, width) that "
    "predict gives, and the number of weights and biases of the last layer",
    hint="Four poolings halve four times. predict answers for the image that it was given. The "
    "last layer is a linear classifier for each pixel.",
    shown="The network is strict, predict is not, and a class more is a handful of weights more.",
)
def _(answer: Any) -> None:
    names = ("sides that fit", "shape of predict's answer", "weights of the last layer")
    sides, shape, weights = expect_parts(answer, names)
    if isinstance(sides, int) and not isinstance(sides, bool):
        raise Wrong(f"the sides that fit are two, (smaller, larger), and you gave {sides}.")
    with torch.device("meta"):
        model = UNet(3, 5, base_channels=16)
    expect_guess(
        sides,
        (240, 256),
        "the pair of sides that fit",
        axes=("smaller", "larger"),
        mistakes={(248, 252): "Being even is not enough.", (224, 256): "There is a larger one."},
    )
    expect_guess(
        shape,
        (model.num_classes, 250, 250),
        "predict's answer",
        axes=("classes", "height", "width"),
        mistakes={
            (5, 256, 256): "What was added to the image belongs to nobody.",
            (3, 250, 250): "3 are the channels of the image.",
        },
    )
    expect_number(
        weights,
        sum(values.numel() for values in model.out.parameters()),
        "the number of weights and biases in the last layer",
        mistakes={
            80: "Each class has a bias, too.",
            725: "Its kernel is 1×1.",
            325: "It sees 16 features, with these base channels.",
        },
    )


@exercise(
    "7.2",
    "Fold a batch normalization",
    answer="a function fold(convolution, normalization) that returns a new Conv2d",
    hint="In use the normalization multiplies a channel by γ / √(σ² + ε). Let the filter that "
    "makes this channel do so, then see what comes out of both layers for an input of zeros. "
    "The numbers: normalization.weight, .bias, .running_mean, .running_var and .eps.",
    shown="One layer instead of two, and the same maps but for rounding.",
)
def _(answer: Any) -> None:
    fold = expect_function(answer, "fold(convolution, normalization)")
    for bias in (False, True):
        # As many channels in as out: who scales the wrong axis gets no error from PyTorch.
        convolution = nn.Conv2d(4, 4, kernel_size=3, padding=1, bias=bias)
        normalization = nn.BatchNorm2d(4, eps=0.1).eval()
        with torch.no_grad():
            for values in (*normalization.parameters(), *normalization.buffers()):
                if values.is_floating_point():
                    values.uniform_(0.5, 2.0)
        layers = nn.Sequential(convolution, normalization)
        before = {name: values.clone() for name, values in layers.state_dict().items()}
        tried = f"fold of Conv2d(4, 4, kernel_size=3, padding=1, bias={bias}) and BatchNorm2d(4)"
        folded = call(fold, convolution, normalization, tried=tried)
        for name, values in layers.state_dict().items():
            if not torch.equal(values, before[name]):
                which = "convolution" if name.startswith("0.") else "normalization"
                raise Wrong(
                    f"{tried} has changed {which}.{name[2:]}. Expected a new layer, and both as "
                    "they were."
                )
        _expect_folded(folded, layers, tried)


@torch.no_grad()
def _expect_folded(folded: Any, layers: nn.Sequential, tried: str) -> None:
    """Compare the weights, then the bias, by what they do."""
    if not isinstance(folded, nn.Conv2d):
        raise Wrong(f"{tried}: a Conv2d is expected, and {describe(folded)} came.")
    maps, nothing = torch.rand(1, 4, 6, 6), torch.zeros(1, 4, 6, 6)
    expected, expected_bias = layers(maps), layers(nothing)
    given = expect_shape(
        call(folded, maps, tried=f"{tried}, then the new layer"), (1, 4, 6, 6), tried
    )
    given_bias = folded(nothing)
    if not torch.allclose(given - given_bias, expected - expected_bias, atol=1e-4):
        factors = [
            (ours * theirs).sum().item() / (theirs * theirs).sum().item()
            for ours, theirs in zip(
                (given - given_bias)[0], (expected - expected_bias)[0], strict=True
            )
        ]
        raise Wrong(
            f"{tried}: the weights are not right. For its four output channels, expected 1 times "
            "what both layers make of the same input, got "
            f"{', '.join(f'{factor:.2f}' for factor in factors)} times."
        )
    off = (given_bias - expected_bias)[0, :, 3, 3].abs()
    if off.max() > 1e-4:
        channel = int(off.argmax())
        raise Wrong(
            f"{tried}: the weights are right, the bias is not. For an input of zeros, in channel "
            f"{channel}, expected {expected_bias[0, channel, 3, 3].item():.4f}, got "
            f"{given_bias[0, channel, 3, 3].item():.4f}."
        )


@exercise(
    "7.3",
    "What predict does around a network",
    answer="a function answer_any_size(network, image) that returns probabilities (K, H, W)",
    hint="-height % 16 is what a height lacks of the next multiple of 16, and 0 where it lacks "
    "nothing. torch.nn.functional.pad(batch, (left, right, top, bottom), mode='reflect') mirrors. "
    "What has to be undone afterward?",
    shown="The same probabilities as those of predict, for every size that was tried.",
)
def _(answer: Any) -> None:
    answer_any_size = expect_function(answer, "answer_any_size(network, image)")
    model = UNet(1, 3, base_channels=2).eval()
    given: list[tuple[int, int]] = []

    def note(layer: nn.Module, batch: tuple[Tensor, ...]) -> None:
        given.append((batch[0].shape[-2], batch[0].shape[-1]))

    model.register_forward_pre_hook(note)
    for height, width in ((32, 48), (39, 39), (50, 33), (64, 61)):
        image = torch.rand(1, height, width)
        tried = f"answer_any_size(network, image), image 1×{height}×{width}"
        given.clear()
        chances = call(answer_any_size, model, image, tried=tried)
        if not given:
            raise Wrong(f"{tried}: the network was never called.")
        expect_shape(chances, (3, height, width), tried)
        _expect_like_predict(chances, model, image, given[-1], tried)


def _expect_like_predict(
    chances: Tensor, model: UNet, image: Tensor, given: tuple[int, int], tried: str
) -> None:
    """Compare with `predict`, and say which part of what it does is missing."""
    height, width = image.shape[1:]
    padded = height + -height % 16, width + -width % 16
    if given != padded:
        raise Wrong(
            f"{tried}: the network was given {shape_text(given)}. Expected the next multiples of "
            f"16, {shape_text(padded)}."
        )
    sums = chances.detach().sum(dim=0)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise Wrong(
            f"{tried}: expected probabilities, whose sum over the classes of a pixel is 1, got "
            f"sums from {sums.min().item():.2f} to {sums.max().item():.2f}."
        )
    expected = torch.from_numpy(predict(model, image, precision="float32", tile=None))
    off = (chances.detach() - expected).abs().amax(dim=0)
    if off.max() > 1e-4:
        row, column = divmod(int(off.argmax()), width)
        raise Wrong(
            f"{tried}: the shape is right, but a probability differs from that of predict by "
            f"{off.max().item():.2g}, at pixel ({row}, {column}). Expected the image mirrored at "
            "its borders, by as much on both sides, or by one more below and on the right."
        )


COLORS = ((0, 0, 0), (220, 60, 60), (60, 220, 60), (60, 60, 220))


@exercise(
    "7.4",
    "Class indices from a colored mask",
    answer="a function to_indices(picture, colors) that returns an array (H, W) of whole numbers",
    hint="picture == color has three answers for each pixel, and all of them must be yes. Begin "
    "with an array of −1: what is still −1 at the end has a color that nobody listed.",
    shown="A number for each color of the list, and an error, not a class, for every other color.",
)
def _(answer: Any) -> None:
    to_indices = expect_function(answer, "to_indices(picture, colors)")
    chance = np.random.default_rng(0)
    for told, colors in (
        ("four colors", COLORS),
        ("the same four in another order", (COLORS[2], COLORS[0], COLORS[3], COLORS[1])),
        ("colors that share some of their numbers", ((90, 90, 90), (255, 0, 0), (255, 90, 90))),
    ):
        classes = chance.integers(len(colors), size=(12, 17))
        picture = np.array(colors, np.uint8)[classes]
        tried = f"to_indices of a picture 12×17×3, {told}"
        index = call(to_indices, picture, colors, tried=tried)
        if not isinstance(index, np.ndarray) or index.dtype.kind not in "iu":
            what = (
                f"an array of {index.dtype}" if isinstance(index, np.ndarray) else describe(index)
            )
            raise Wrong(f"{tried}: an array of whole numbers is expected, and {what} came.")
        if index.shape != classes.shape:
            raise Wrong(
                f"{tried}: expected an index for each pixel, shape 12×17, got "
                f"{shape_text(index.shape)}."
            )
        wrong = np.argwhere(index != classes)
        if len(wrong):
            row, column = wrong[0].tolist()
            raise Wrong(
                f"{tried}: the color {tuple(picture[row, column].tolist())} has index "
                f"{classes[row, column]} in the list, and got {index[row, column]}. That is wrong "
                f"at {len(wrong)} of {classes.size} pixels."
            )
    _expect_refusal(to_indices)


def _expect_refusal(to_indices: Any) -> None:
    """Hand over a mask with one pixel of a color that is not listed."""
    picture = np.zeros((6, 5, 3), np.uint8)
    picture[:, 2:] = COLORS[1]
    picture[3, 2] = (110, 30, 30)
    try:
        index = to_indices(picture.copy(), COLORS)
    except ValueError:
        return
    except Exception as error:
        raise Wrong(
            "to_indices of a picture with one pixel (110, 30, 30), which is not listed: expected "
            f"a ValueError, got {what_went_wrong(error)}"
        ) from error
    given = np.asarray(index)[3, 2]
    raise Wrong(
        "to_indices of a picture with one pixel (110, 30, 30), which is not listed: expected a "
        f"ValueError, and it became class {given} in silence."
    )
