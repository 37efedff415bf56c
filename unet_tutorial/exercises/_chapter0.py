"""Exercises of chapter 0: Context and localization."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    exercise,
    expect_answer,
    expect_close,
    expect_function,
    expect_number,
    expect_parts,
    expect_shape,
    plain_number,
    recognize,
)


@exercise(
    "0.1",
    "A membrane that is drawn too wide",
    answer="three numbers: pixel error, Dice, V_Rand",
    hint="How many of the 25 columns are wrong? How many pixels do the two masks have together, "
    "and how many in common? And are the two cells still apart?",
    shown="One pixel on either side costs a membrane half of its Dice, and no cell is lost.",
)
def _(answer: Any) -> None:
    error, overlap, rand = expect_parts(answer, ("pixel error", "Dice", "V_Rand"))
    expect_number(
        error,
        2 / 25,
        "the pixel error",
        tolerance=0.001,
        mistakes={
            0.04: "The membrane is too wide on both sides.",
            0.12: "The membrane's own pixels are right.",
            2.0: "It is a share of all pixels.",
            50: "That is the number of wrong pixels: take their share.",
            8: "That would be percent: write it as a share of 1.",
        },
    )
    expect_number(
        overlap,
        0.5,
        "Dice",
        tolerance=0.001,
        mistakes={
            1 / 3: "That is IoU, common pixels over the pixels of either.",
            0.333: "That is IoU, common pixels over the pixels of either.",
            0.33: "That is IoU, common pixels over the pixels of either.",
            2 / 3: "The membrane is too wide on both sides.",
            0.25: "Twice the common pixels stand above the line.",
            0.92: "That is the share of right pixels; Dice asks for the membrane alone.",
        },
    )
    expect_number(
        rand,
        1,
        "V_Rand",
        tolerance=0.001,
        mistakes={
            0.667: "That is the score of the gap, through which the cells run together.",
            0.67: "That is the score of the gap, through which the cells run together.",
            0: "Are the two cells no longer apart?",
            0.5: "V_Rand looks at cells, not at the membrane's pixels.",
            0.92: "V_Rand looks at cells, not at single pixels.",
        },
    )


@exercise(
    "0.2",
    "How many convolutions see 140 pixels?",
    answer="one number",
    hint="One convolution sees 3 pixels, two see 5, three see 7. By how much does each add to the "
    "side, and where does it begin?",
    shown="And all of them at full resolution. That is why networks pool.",
)
def _(answer: Any) -> None:
    expect_answer(answer)
    expect_number(
        answer,
        70,
        "the number of convolutions",
        mistakes={
            69: "So many see 139 pixels.",
            71: "One less is enough.",
            139: "Each convolution adds pixels on both sides.",
            140: "Each convolution adds pixels on both sides.",
            47: "Neighboring convolutions look at overlapping windows.",
            46: "Neighboring convolutions look at overlapping windows.",
            10: "That is how many the U-Net has down to there; here there is no pooling.",
        },
    )


@exercise(
    "0.3",
    "Dice, with nothing to find",
    answer="a function own_dice(prediction, truth) that returns one number",
    hint="In words it stands below the first scores of this chapter: twice what both have, over "
    "what they have together. For which masks is the second number zero?",
    shown="All agree with the package's dice, the empty masks included. Which value an empty mask "
    "gets is a choice; that there is one must be said.",
)
def _(answer: Any) -> None:
    own_dice = expect_function(answer, "own_dice(prediction, truth)")
    truth = np.zeros((6, 8), dtype=int)
    truth[:, 3:5] = 1
    shifted, nothing, far = np.roll(truth, 1, axis=1), np.zeros_like(truth), np.zeros_like(truth)
    far[:, 0] = 1
    wide = np.maximum(truth, shifted)
    cases = {
        "a prediction that is right": (truth, truth, 1.0),
        "a membrane of 12 pixels, found one column too far to the right": (shifted, truth, 0.5),
        "a membrane of 12 pixels, found one column too wide": (wide, truth, 0.8),
        "a prediction that has no pixel in common with the truth": (far, truth, 0.0),
        "an empty prediction, and a membrane in the truth": (nothing, truth, 0.0),
        "a membrane in the prediction, and none in the truth": (truth, nothing, 0.0),
        "nothing to find and nothing found": (nothing, nothing, 1.0),
        "masks of True and False": (wide.astype(bool), truth.astype(bool), 0.8),
    }
    for tried, (prediction, mask, right) in cases.items():
        value = call(own_dice, prediction, mask, tried=f"own_dice of {tried}")
        value = plain_number(value)
        if 0 < right < 1:
            common, either = (prediction * mask).sum(), np.maximum(prediction, mask).sum()
            recognize(
                value,
                {
                    "that is IoU, common pixels over the pixels of either.": common / either,
                    "that is half of it: twice the common pixels stand above the line.": right / 2,
                    "that is the share of right pixels; Dice asks for the membrane alone.": float(
                        (prediction == mask).mean()
                    ),
                },
                f"own_dice of {tried}",
            )
        expect_close(value, right, f"own_dice of {tried}")


class _Counting(nn.Module):
    """Sees 7×7 pixels, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)
        ).requires_grad_(False)
        self.asked: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(tuple(images.shape))
        return self.layers(images)


@exercise(
    "0.4",
    "One window for each pixel",
    answer="a function slide(network, image, side) that returns the answers, (1, 2, rows, columns)",
    hint="How many windows of 7 fit into a line of 10 pixels? Cut with two slices; for one window "
    "the network answers with a map of a single place.",
    shown="Pixel for pixel this is what network(image) gives in one pass, unpadded as it is. The "
    "sliding window computes the same, and most of it many times.",
)
def _(answer: Any) -> None:
    slide = expect_function(answer, "slide(network, image, side)")
    for height, width in ((9, 9), (10, 12)):
        network, image = _Counting(), torch.rand(1, 1, height, width)
        right = network.layers(image)
        tried = f"slide(network, image, 7), image of 1×1×{height}×{width}"
        answers = call(slide, network, image, 7, tried=tried)
        rows, columns = right.shape[2:]
        other = next((shape for shape in network.asked if shape[2:] != (7, 7)), None)
        if other:
            raise Wrong(
                f"{tried}: the network was asked for {other[2]}×{other[3]} pixels at once; give it "
                "windows of 7×7 only."
            )
        if sum(shape[0] for shape in network.asked) != rows * columns:
            raise Wrong(
                f"{tried}: there are {rows * columns} places for the window, and the network was "
                f"asked {sum(shape[0] for shape in network.asked)} times."
            )
        expect_shape(answers, right.shape, tried)
        recognize(answers, {"rows and columns are exchanged.": right.mT}, tried)
        expect_close(answers, right, tried)
