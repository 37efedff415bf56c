"""Exercises of chapter 4: the skip connections and the final layer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    describe,
    exercise,
    expect_function,
    expect_guess,
    expect_parts,
    expect_shape,
    shape_text,
)
from unet_tutorial.unet import UNet


@exercise(
    "4.1",
    "Shapes of a network for color images",
    answer="a triple: the shapes (channels, height, width) of the output, of the bottleneck, and "
    "of what the last double convolution takes",
    hint="Each pooling halves both sides, and each level down has twice the channels. Two maps lie "
    "side by side before the last double convolution.",
    shown="Height and width follow from the poolings alone, the channels from base_channels and "
    "depth; of the number of classes nothing but the last layer knows.",
)
def _(answer: Any) -> None:
    names = ("output", "bottleneck", "input of the last double convolution")
    output, bottleneck, last = expect_parts(answer, names)
    # By arithmetic, as the reader does it; tests/test_exercises.py compares it with trace_shapes.
    expect_guess(
        output,
        (5, 200, 264),
        "the output",
        mistakes={
            (3, 200, 264): "3 are the channels of the image.",
            (32, 200, 264): "32 are the features before the final layer.",
        },
    )
    expect_guess(
        bottleneck,
        (32 * 2**3, 200 // 2**3, 264 // 2**3),
        "the bottleneck",
        mistakes={
            (512, 12, 16): "That would be a network of depth 4.",
            (128, 25, 33): "Those are the channels of the level above.",
        },
    )
    expect_guess(
        last,
        (32 + 32, 200, 264),
        "the input of the last double convolution",
        mistakes={(32, 200, 264): "That is one of two maps that meet there."},
    )


@exercise(
    "4.2",
    "Make 39 and 40 meet",
    answer="a function meet(up, skip) that returns both in one tensor, of the size of the skip",
    hint="torch.nn.functional.pad(up, (left, right, top, bottom)) adds columns and rows, and cuts "
    "them off where a number is negative. Which row does a pooling drop, the first or the last?",
    shown="The mask will be as large as the image, and no map has moved against the other: row 0 "
    "lies above row 0. What a new row holds is an invention, though.",
)
def _(answer: Any) -> None:
    meet = expect_function(answer, "meet(up, skip)")
    # The map from below too small, too large (pooling with ceil_mode=True), both, neither.
    for below, beside in (
        ((38, 38), (39, 39)),
        ((40, 40), (39, 39)),
        ((38, 64), (39, 64)),
        ((64, 38), (64, 39)),
        ((38, 40), (39, 39)),
        ((32, 48), (32, 48)),
    ):
        up = 1 + torch.rand(2, 3, *below)
        skip = -1 - torch.rand(2, 5, *beside)
        tried = f"meet(up, skip), up {shape_text(up.shape)} and skip {shape_text(skip.shape)}"
        joined = expect_shape(call(meet, up, skip, tried=tried), (2, 8, *beside), tried)
        _expect_meeting(joined, up, skip, tried)


def _expect_meeting(joined: Tensor, up: Tensor, skip: Tensor, tried: str) -> None:
    """Check (up, skip) in this order, each pixel of up above the one that it was."""
    if torch.equal(joined[:, :5], skip):
        raise Wrong(
            f"{tried}: the first 5 channels are the skip; expected (up, skip), the order of the "
            "code article."
        )
    if not torch.equal(joined[:, 3:], skip):
        raise Wrong(f"{tried}: the last 5 channels are not the skip as it was.")
    if not torch.isfinite(joined).all():
        raise Wrong(f"{tried}: what was added is not finite (nan or infinity).")
    rows = min(up.shape[2], skip.shape[2])
    columns = min(up.shape[3], skip.shape[3])
    ours, theirs = joined[:, :3, :rows, :columns], up[:, :, :rows, :columns]
    if torch.equal(ours, theirs):
        return
    moves = {"down": (1, 0), "to the right": (0, 1), "down and to the right": (1, 1)}
    for where, (down, right) in moves.items():
        for one, other in ((ours, theirs), (theirs, ours)):
            here = one[:, :, down:, right:]
            if torch.equal(here, other[:, :, : here.shape[2], : here.shape[3]]):
                way = where if one is ours else "up or to the left"
                raise Wrong(
                    f"{tried}: the map from below has moved {way}, by one pixel. Expected its "
                    "pixel (0, 0) above pixel (0, 0) of the skip, from which it was pooled."
                )
    row = int((ours != theirs).any(dim=(0, 1, 3)).nonzero()[0])
    mixed = ours.amin() >= theirs.amin() and ours.amax() <= theirs.amax()
    raise Wrong(
        f"{tried}: from row {row} on, the values of the map from below are not what they were."
        + (" They are mixtures of neighbors, as if it had been resized." if mixed else "")
    )


@exercise(
    "4.3",
    "Weights for the other order",
    answer="a function translate(state) that takes her state_dict and returns one for our network",
    hint="Which layers take the concatenated maps? A weight has the shape (out, in, 3, 3), and one "
    "of these axes counts the maps that come in. Its first half belongs to what now comes second.",
    shown="Ours answers like hers, but for rounding. Nothing in a file of weights says in which "
    "order its network concatenates: as they were they fit as well, and no message would have "
    "told that the answers are others.",
)
def _(answer: Any) -> None:
    translate = expect_function(answer, "translate(state)")
    hers = UNet(1, 2, base_channels=4, depth=3).eval()
    image = torch.rand(1, 1, 32, 32)
    for level in range(hers.depth):  # the convolutions get the halves the other way round
        hers.get_submodule(f"expansive.{level}.conv").register_forward_pre_hook(
            lambda layer, maps: (maps[0].roll(maps[0].shape[1] // 2, dims=1),)
        )
    state = {name: values.clone() for name, values in hers.state_dict().items()}
    given = call(translate, dict(state), tried="translate(state)")
    if not isinstance(given, dict):
        raise Wrong(f"translate(state): a state_dict is expected, and {describe(given)} came.")
    for name, values in hers.state_dict().items():
        if not torch.equal(state[name], values):
            raise Wrong(
                f"translate(state) has changed her own tensor {name}. Write into a new one."
            )
    _expect_translated(given, hers, image)


def _expect_translated(given: dict[str, Any], hers: UNet, image: Tensor) -> None:
    """Check that our network with the given weights answers as hers does."""
    ours = UNet(1, 2, base_channels=4, depth=3).eval()
    original = hers.state_dict()
    for name, values in original.items():
        if name not in given:
            raise Wrong(f"translate(state): expected all {len(original)} names, {name} is missing.")
        expect_shape(given[name], values.shape, f"translate(state), {name}")
    for name in given:
        if name not in original:
            raise Wrong(f"translate(state): the network has no tensor named {name!r}.")
    with torch.no_grad():
        ours.load_state_dict(given)
        difference = (ours(image) - hers(image)).abs().max().item()
    if difference < 1e-5:
        return
    joints = [f"expansive.{level}.conv.conv_block.0.weight" for level in range(hers.depth)]
    same = [name for name in joints if torch.equal(given[name], original[name])]
    others = [
        name
        for name, values in original.items()
        if name not in joints and not torch.equal(given[name], values)
    ]
    reason = "The right tensors have changed, but not in the right way."
    if len(same) == len(joints):
        reason = "The layers that take the concatenated maps are as they were."
    elif same:
        reason = f"{len(same)} of {len(joints)} layers that take concatenated maps are unchanged."
    elif others:
        reason = f"{others[0]} has changed, and it takes no concatenated maps."
    raise Wrong(
        "translate(state), loaded into our network: expected the logits of her network but for "
        f"rounding, got a difference of {difference:.2g}. {reason}"
    )


@exercise(
    "4.4",
    "From logits to a mask that one can see",
    answer="a function save_mask(logits, path) that writes a PNG file",
    hint="Image.fromarray(index) of an 8-bit index makes a picture that holds indices. With "
    ".putpalette([red, green, blue, red, …]) each index gets a color, and stays an index.",
    shown="A program reads 0, 1 and 2, and an eye sees three colors: it is one file for both.",
)
def _(answer: Any) -> None:
    save_mask = expect_function(answer, "save_mask(logits, path)")
    logits = torch.randn(1, 3, 20, 31)
    index = logits[0].argmax(dim=0).numpy()
    tried = "save_mask(logits, path), logits 1×3×20×31"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        call(lambda *given: (save_mask(*given), True), logits, path, tried=tried)
        if not path.exists():
            raise Wrong(f"{tried}: there is no file at the path that was given.")
        try:
            with Image.open(path) as opened:
                opened.load()
                picture = opened.copy()
        except OSError:
            raise Wrong(f"{tried}: the file is no picture that can be opened.") from None
    values = np.asarray(picture)
    if values.ndim == 3:
        raise Wrong(
            f"{tried}: the file holds {values.shape[2]} numbers for each pixel. Expected one, the "
            "class index, for the program that will read it."
        )
    if values.shape != index.shape:
        raise Wrong(
            f"{tried}: expected a picture of 20 rows and 31 columns, got {values.shape[0]} rows "
            f"and {values.shape[1]} columns."
        )
    if not np.array_equal(values, index):
        found = [int(value) for value in np.unique(values)]
        listed = ", ".join(map(str, found[:4])) + (", …" if len(found) > 4 else "")
        raise Wrong(
            f"{tried}: expected 0, 1 or 2 at each pixel, the index of its largest logit. The file "
            f"holds {listed}, and is right at {np.mean(values == index):.0%} of the pixels."
        )
    colors = np.asarray(picture.convert("RGB")).astype(int)
    shown = [tuple(colors[index == one][0].tolist()) for one in range(3)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        apart = max(abs(a - b) for a, b in zip(shown[first], shown[second], strict=True))
        if apart < 60:
            raise Wrong(
                f"{tried}: the indices are right, and nobody can see them. Class {first} is shown "
                f"as {shown[first]}, class {second} as {shown[second]} (red, green and blue, of "
                "255); expected colors that are at least 60 apart in one of the three."
            )
