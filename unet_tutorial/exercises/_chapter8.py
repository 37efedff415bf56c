"""Exercises of chapter 8: Pre-trained encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    exercise,
    expect_class,
    expect_close,
    expect_function,
    expect_guess,
    expect_number,
    expect_parts,
    expect_shape,
    recognize,
)


@exercise(
    "8.1",
    "Shapes under a ResNet",
    answer="two shapes (channels, height, width): of the bottleneck, and of what the last double "
    "convolution receives",
    hint="The first map has stride 2, the last one 32. At the top two things meet: half of the "
    "channels from below, and what the double convolution at full resolution hands on.",
    shown="Five halvings, so sizes are multiples of 32. At the top only 16 channels carry the "
    "image's own detail: the ResNet has none to give there.",
)
def _(answer: Any) -> None:
    bottom, top = expect_parts(answer, ("bottleneck", "last double convolution"))
    expect_guess(
        bottom,
        (512, 10, 8),
        "the bottleneck",
        mistakes={
            (512, 20, 16): "The ResNet halves once more often than the U-Net: its stem halves, and "
            "a pooling follows at once.",
            (256, 10, 8): "That is how many channels come one stage earlier.",
            (1024, 10, 8): "So many has the bottleneck of the paper's U-Net.",
            (512, 8, 10): "Height comes before width.",
            (512, 5, 4): "Count the halvings: stem, pooling, and three of the four stages.",
        },
    )
    expect_guess(
        top,
        (48, 320, 256),
        "what the last double convolution receives",
        mistakes={
            (128, 320, 256): "There are no 64 channels at full resolution: the first map of the "
            "ResNet has half the size.",
            (32, 320, 256): "That is the part from below. A skip joins it.",
            (16, 320, 256): "That is the skip. What comes from below joins it.",
            (80, 320, 256): "Does the up-convolution keep its 64 channels?",
            (96, 160, 128): "That is one level lower.",
            (48, 160, 128): "It works at full resolution.",
        },
    )


@exercise(
    "8.2",
    "What a depthwise convolution saves",
    answer="two numbers of weights: of the full convolution, and of the two thin ones together",
    hint="A full kernel is as deep as there are channels. A depthwise one is one channel deep; the "
    "1×1 convolution has one weight for each pair of channels.",
    shown="One part of the work looks around, the other mixes channels. Apart they need about a "
    "ninth of the weights, and of the multiplications.",
)
def _(answer: Any) -> None:
    full, thin = expect_parts(answer, ("full", "depthwise and 1×1"))
    expect_number(
        full,
        9 * 240 * 240,
        "the number of weights of the full convolution",
        mistakes={
            9 * 240: "That is one kernel for each channel, one channel deep.",
            240 * 240: "That would be a 1×1 convolution.",
            9 * 240 * 240 + 240: "A layer before batch normalization has no bias.",
        },
    )
    expect_number(
        thin,
        9 * 240 + 240 * 240,
        "the number of weights of the two together",
        mistakes={
            9 * 240: "That is the depthwise one alone.",
            240 * 240: "That is the 1×1 convolution alone.",
            9 * 240 + 240 * 240 + 480: "Layers before batch normalization have no bias.",
            9 * 240 * 240 + 240 * 240: "A depthwise kernel sees one channel only.",
            9 * 240 * 240: "That is as much as the full one.",
            9 + 240 * 240: "Each channel has a kernel of its own.",
        },
    )


@exercise(
    "8.3",
    "A gray image for kernels that know color",
    answer="a function to_gray(weight) that takes a tensor (channels, 3, height, width) and "
    "returns one of (channels, 1, height, width)",
    hint="A gray image repeated three times gives red · gray + green · gray + blue · gray. What is "
    "in brackets if gray is taken out?",
    shown="The same answers as for the image repeated three times, from a third of the "
    "multiplications. `adapt_first_convolution` of the package does this.",
)
def _(answer: Any) -> None:
    to_gray = expect_function(answer, "to_gray(weight)")
    for channels, side in ((4, 3), (2, 7)):
        weight = torch.randn(channels, 3, side, side)
        tried = f"to_gray(weight), weight of {channels}×3×{side}×{side}"
        came = call(to_gray, weight, tried=tried)
        right = weight.sum(1, keepdim=True)
        if isinstance(came, nn.Module):
            raise Wrong(f"{tried}: the weights alone are expected, not a layer.")
        recognize(
            came,
            {
                "the axis of the colors is gone; it must stay, with length 1.": weight.sum(1),
                "the mean is a third of what the repeated image gives: every answer of the layer "
                "would be too small.": weight.mean(1, keepdim=True),
                "that is the red channel's part alone. Where are green and blue?": weight[:, :1],
                "the weights of brightness as the eye sees it belong to the picture. The layer "
                "gets an image that is gray already.": (
                    weight * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
                ).sum(1, keepdim=True),
                "the sum goes over the wrong axis: over the channels that come out.": weight.sum(
                    0, keepdim=True
                ),
                "nothing has changed.": weight,
            },
            tried,
        )
        expect_shape(came, right.shape, tried)
        expect_close(came, right, tried)


class _Path(nn.Module):
    """A contracting path of one layer, with all that can drift."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))


@exercise(
    "8.4",
    "A frozen path that stays frozen",
    answer="a class Frozen(encoder): a module that hands on what the encoder gives",
    hint="Two things move a network: gradients, and in training mode the statistics of batch "
    "normalization. model.train() calls train() of every part; a class may have its own.",
    shown="No gradient, no drift, whatever is trained around it. `freeze` of the package does it "
    "for the encoder of an EncoderUNet.",
)
def _(answer: Any) -> None:
    frozen_class = expect_class(answer, "Frozen(encoder)")
    encoder = _Path()
    encoder.norm.running_mean.fill_(0.5)  # type: ignore[union-attr]
    frozen = call(frozen_class, encoder, tried="Frozen(encoder)")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        right = _evaluate(encoder, images)
    head = nn.Conv2d(3, 2, kernel_size=1)
    model = nn.Sequential(frozen, head)
    model.train()
    if not (head.training and model.training):
        raise Wrong("model.train(): the parts around the frozen one must be in training mode.")
    model.train()  # as every new training does
    maps = call(frozen, images, tried="frozen(images) after model.train()")
    expect_shape(maps, right.shape, "frozen(images)")
    after = encoder.state_dict()
    if not torch.equal(after["norm.running_mean"], before["norm.running_mean"]):
        raise Wrong(
            "after model.train(), one pass has moved the encoder's running mean: its batch "
            "normalization is in training mode and drifts, without any gradient."
        )
    if not torch.allclose(maps, right, atol=1e-5):
        raise Wrong(
            "after model.train(), frozen(images) is not what the encoder gives in evaluation mode: "
            "its answer depends on the other images of the batch."
        )
    call(model, images, tried="model(images)").sum().backward()
    moving = [name for name, weight in encoder.named_parameters() if weight.grad is not None]
    if moving:
        raise Wrong(f"backward() has left a gradient in the encoder: {', '.join(moving)}.")
    if any(weight.requires_grad for weight in encoder.parameters()):
        raise Wrong(
            "weights of the encoder still ask for gradients (requires_grad is True): an optimizer "
            "with weight decay may count on them, and memory is spent."
        )
    if head.weight.grad is None:
        raise Wrong("backward() has left no gradient in the layer behind: that one is to learn.")
    try:
        model.eval()
        model.train()
        returned = frozen.train()
    except Exception as error:
        raise Wrong(f"model.eval() and model.train() stopped with {error!r}.") from error
    if returned is not frozen:
        raise Wrong(
            "frozen.train() must return the module itself, as train() of every module does: "
            "people write model = model.train()."
        )
    if frozen.eval().training or not frozen.train().training:
        raise Wrong("frozen.training must tell the mode that was asked for; the encoder's stays.")


def _evaluate(encoder: nn.Module, images: Tensor) -> Tensor:
    """Run in evaluation mode, and leave the modes as they were."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    maps = encoder(images)
    for module, mode in modes:
        module.training = mode
    return maps
