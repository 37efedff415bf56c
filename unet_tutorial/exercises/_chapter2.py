"""Exercises of chapter 2: Bottleneck."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    exercise,
    expect_close,
    expect_function,
    expect_number,
    expect_parts,
    expect_shape,
    plain_number,
)


@exercise(
    "2.1",
    "A level deeper, and half as wide",
    answer="three numbers: the bottleneck's channels, its share of all parameters, and the side "
    "that it sees",
    hint="Channels double with every level, beginning with base_channels. For the share, compare "
    "the weights of one level with those of the level above, and remember what it was at depth 4.",
    shown="The same number of channels at the bottom, and again nearly half of the parameters: "
    "each level has four times the weights of the one above, at any depth.",
)
def _(answer: Any) -> None:
    channels, share, sees = expect_parts(answer, ("channels", "share", "sees"))
    expect_number(
        channels,
        32 * 2**5,
        "the number of channels",
        mistakes={
            512: "That is one level less deep.",
            2048: "So many are there with the full width.",
            160: "Channels double with every level.",
            32: "So many are there at the top.",
        },
    )
    share = plain_number(share)
    if isinstance(share, int | float) and 1 < share <= 100:
        raise Wrong(f"The share is not {share:g}: write it as a part of 1, not in percent.")
    expect_number(
        share,
        0.456,
        "the share of the parameters",
        tolerance=0.03,
        mistakes={
            0.9: "The expansive path has weights as well.",
            0.25: "Four times those of the level above: what remains for all the others?",
            0.228: "Half the width makes everything smaller, not only the bottleneck.",
            0.075: "That is the bottleneck's part in the arithmetic of depth 4.",
            0.009: "That is the bottleneck's part in the memory of depth 4.",
        },
    )
    expect_number(
        sees,
        284,
        "the side that it sees",
        mistakes={
            140: "That is depth 4: one pooling and two convolutions less.",
            280: "Nearly: follow pooling and convolutions of the last level one by one.",
            148: "After five poolings a place on the map is not a pixel any more.",
            156: "That is after the fifth pooling, before the bottleneck's own convolutions.",
            70: "Half as wide means fewer channels; sight has nothing to do with them.",
        },
    )


@exercise(
    "2.2",
    "What the bottleneck sees",
    answer="a function sees(depth) that returns one number of pixels",
    hint="The loop of this chapter does it for depth 4. Which part of its layers is repeated, and "
    "which comes once, whatever the depth?",
    shown="5, 14, 32, 68, 140: each level doubles the sight and adds 4. Compare with the "
    "mitochondria above, before you choose a depth.",
)
def _(answer: Any) -> None:
    sees = expect_function(answer, "sees(depth)")
    for depth in (4, 3, 2, 1, 0, 5, 7):
        tried = f"sees({depth})"
        value = plain_number(call(sees, depth, tried=tried))
        right = 9 * 2**depth - 4
        reasons = {
            5 * 2**depth - 4: "That is what the last pooling sees. After it come two convolutions.",
            right // 2 - 2: "That is the last stage of the contracting path.",
            1 + 4 * (depth + 1) + depth: "Behind a pooling, one step on the map is two pixels.",
            1 + 4 * (depth + 1): "Behind a pooling, one step on the map is two pixels.",
            1
            + 4 * (2 ** (depth + 1) - 1): "A pooling sees something by itself: its square is 2×2.",
            140: "That is depth 4.",
        }
        if isinstance(value, int | float) and value != right and value in reasons:
            raise Wrong(f"{tried}: expected {right}, got {value:g}. {reasons[value]}")
        expect_close(value, right, tried)


@exercise(
    "2.3",
    "A prediction that disturbs nothing",
    answer="a function predict_quietly(network, images) that returns the network's answer",
    hint="Three things are to be looked after: which mode the network answers in, which mode it is "
    "in afterwards, and whether PyTorch keeps what a backward pass would need.",
    shown="The same answer each time, no graph, and a network that goes on training where it was. "
    "The package's predict does the same around each prediction.",
)
def _(answer: Any) -> None:
    predict_quietly = expect_function(answer, "predict_quietly(network, images)")
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)
    )
    network(torch.rand(4, 1, 8, 8))  # statistics of its own
    images = torch.rand(2, 1, 8, 8)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        right = network.eval()(images)
    for mode, training in (("training", True), ("evaluation", False)):
        network.train(training)
        tried = f"predict_quietly(network, images), the network in {mode} mode"
        results = [call(predict_quietly, network, images, tried=tried) for _ in range(2)]
        left = network.training
        enabled = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        result = expect_shape(results[0], right.shape, tried)
        again = expect_shape(results[1], right.shape, tried)
        if not torch.equal(result, again):
            raise Wrong(
                f"{tried}: two calls give two answers. The network answers in training mode, in "
                "which drop-out draws anew each time."
            )
        changed = [
            n for n, value in network.state_dict().items() if not torch.equal(value, state[n])
        ]
        if changed:
            raise Wrong(f"{tried}: it has changed the network, {changed[0]}.")
        expect_close(result, right, tried)
        if left != training:
            other = "evaluation" if training else "training"
            raise Wrong(f"{tried}: afterwards it is in {other} mode.")
        if any(part.training != training for part in network.modules()):
            raise Wrong(f"{tried}: afterwards some of its layers are in another mode than before.")
        if result.requires_grad:
            raise Wrong(
                f"{tried}: the result still carries the graph of a backward pass "
                f"({type(result.grad_fn).__name__}), and its memory."
            )
        if not enabled:
            raise Wrong(f"{tried}: afterwards gradients are switched off for everybody.")
        if any(not weights.requires_grad for weights in network.parameters()):
            raise Wrong(f"{tried}: afterwards the network's weights want no gradient any more.")
