"""Plausible wrong answers to the exercises of chapter 2, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def contracting_path_only(depth: int) -> int:
    return 5 * 2**depth - 4


def last_stage(depth: int) -> int:
    return 9 * 2 ** (depth - 1) - 4


def without_steps(depth: int) -> int:
    return 1 + 2 * 2 * (depth + 1) + depth


def pooling_sees_nothing(depth: int) -> int:
    side, step = 1, 1
    for layer in ("conv", "conv", "pool") * depth + ("conv", "conv"):
        if layer == "conv":
            side += 2 * step
        else:
            step *= 2
    return side


def always_four(depth: int) -> int:
    return 140


def doubling(depth: int) -> int:
    return 5 * 2**depth


def printing(depth: int) -> None:
    print(9 * 2**depth - 4)


def as_text(depth: int) -> str:
    return f"{9 * 2**depth - 4} pixels"


def plain(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def stays_in_evaluation(network: nn.Module, images: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        return network(images)


def always_back_to_training(network: nn.Module, images: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        result = network(images)
    network.train()
    return result


def keeps_the_graph(network: nn.Module, images: Tensor) -> Tensor:
    before = network.training
    result = network.eval()(images)
    network.train(before)
    return result


def no_grad_alone(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network(images)


def switches_gradients_off(network: nn.Module, images: Tensor) -> Tensor:
    before = network.training
    torch.set_grad_enabled(False)
    result = network.eval()(images)
    network.train(before)
    return result


def freezes(network: nn.Module, images: Tensor) -> Tensor:
    before = network.training
    result = network.requires_grad_(False).eval()(images)
    network.train(before)
    return result


def softmaxed(network: nn.Module, images: Tensor) -> Tensor:
    before = network.training
    with torch.no_grad():
        result = network.eval()(images).softmax(dim=1)
    network.train(before)
    return result


def without_return(network: nn.Module, images: Tensor) -> None:
    before = network.training
    with torch.no_grad():
        network.eval()(images)
    network.train(before)


WRONG: dict[str, list[tuple[Any, str]]] = {
    "2.1": [
        ((512, 0.456, 284), "That is one level less deep"),
        ((2048, 0.456, 284), "So many are there with the full width"),
        ((160, 0.456, 284), "Channels double with every level"),
        ((1024, 45.6, 284), "write it as a part of 1, not in percent"),
        ((1024, 0.228, 284), "Half the width makes everything smaller"),
        ((1024, 0.25, 284), "what remains for all the others?"),
        ((1024, 0.456, 140), "That is depth 4"),
        ((1024, 0.456, 156), "before the bottleneck's own convolutions"),
        ((1024, 0.456, 280), "too small. Nearly"),
        (1024, "Expected is (channels, share, sees), and you gave 1024"),
    ],
    "2.2": [
        (contracting_path_only, "expected 140, got 76. That is what the last pooling sees"),
        (last_stage, "expected 140, got 68. That is the last stage of the contracting path"),
        (without_steps, "expected 140, got 25. Behind a pooling, one step on the map is two"),
        (pooling_sees_nothing, "expected 140, got 125. A pooling sees something by itself"),
        (always_four, "sees(3): expected 68, got 140. That is depth 4"),
        (doubling, "expected 140, got 80"),
        (printing, "returned nothing. Is a `return` missing?"),
        (as_text, "one number is expected, and the text '140 pixels' came"),
        (140, "A function sees(depth) is expected, and you gave 140"),
    ],
    "2.3": [
        (plain, "two calls give two answers"),
        (no_grad_alone, "two calls give two answers"),
        (stays_in_evaluation, "the network in training mode: afterwards it is in evaluation mode"),
        (always_back_to_training, "in evaluation mode: afterwards it is in training mode"),
        (keeps_the_graph, "still carries the graph of a backward pass"),
        (switches_gradients_off, "gradients are switched off for everybody"),
        (freezes, "the network's weights want no gradient any more"),
        (softmaxed, "values differ"),
        (without_return, "returned nothing. Is a `return` missing?"),
        (torch.zeros(2, 2, 6, 6), "Give the function itself, without calling it"),
    ],
}


def on_a_copy(network: nn.Module, images: Tensor) -> Tensor:
    return copy.deepcopy(network).eval()(images).detach()


@torch.inference_mode()
def decorated(network: nn.Module, images: Tensor) -> Tensor:
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        return network(images)
    finally:
        for part, mode in modes:
            part.training = mode


RIGHT: dict[str, list[Any]] = {
    "2.1": [(1024, 0.45, 284)],
    "2.2": [lambda depth: 9 * 2**depth - 4, lambda depth: 4 * (2**depth - 1) + 5 * 2**depth],
    "2.3": [on_a_copy, decorated],
}
