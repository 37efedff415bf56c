"""Exercises of chapter 6: a modern training."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial.exercises._exercise import (
    Wrong,
    call,
    describe,
    exercise,
    expect_answer,
    expect_function,
    expect_parts,
)
from unet_tutorial.unet import UNet


@exercise(
    "6.1",
    "What half precision leaves",
    answer="a pair: the share of the old time that the convolutions took, and how many times as "
    "fast as at first the training can become",
    hint="Call the share p. Of the old time, 1 − p stays as it is and p becomes p/2; together they "
    "are the new time. For the second number let the convolutions take no time at all.",
    shown="What is not made faster sets the limit, and each rung makes the rest more visible.",
)
def _(answer: Any) -> None:
    share, fastest = expect_parts(answer, ("share", "fastest"))
    for name, value in (("share", share), ("fastest", fastest)):
        if not _is_number(value):
            raise Wrong(f"{name} must be one number, and you gave {describe(value)}.")
    if not 0 < share < 1:
        raise Wrong(f"share must lie between 0 and 1, and you gave {share:g}.")
    faster = 1 / (1 - share + share / 2)
    if not math.isclose(faster, 1.6, rel_tol=0.01):
        raise Wrong(
            f"share is not {share:g}: with half the time for such a share, the training would be "
            f"{faster:.2f} times as fast. It was 1.6 times."
        )
    if math.isinf(fastest):
        raise Wrong("fastest is not infinite: what is no convolution still takes its time.")
    if not fastest > 1:
        raise Wrong(f"fastest must be above 1, times as fast as at first; you gave {fastest:g}.")
    if not math.isclose(1 / fastest, 1 - share, rel_tol=0.01):
        raise Wrong(
            f"fastest is not {fastest:g}: then {1 / fastest:.0%} of the first time would be left. "
            "That is not what remains without the convolutions."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@exercise(
    "6.2",
    "The gradient of a batch that does not fit",
    answer="a function accumulate(model, images, labels, at_once) that leaves the gradient in the "
    "weights' .grad, and returns nothing",
    hint="backward() adds to what is in .grad already. The loss of a part is a mean over that "
    "part: how much of it counts in the mean over all? Parts need not be equally large.",
    shown="The gradient of all eight, and never more than the allowed number in memory.",
)
def _(answer: Any) -> None:
    accumulate = expect_function(answer, "accumulate(model, images, labels, at_once)")
    # Images and labels that differ, so that it shows how much each of them counts.
    images = torch.rand(8, 1, 16, 16) * torch.linspace(0.5, 2, 8).reshape(8, 1, 1, 1)
    labels = (torch.rand(8, 16, 16) < torch.linspace(0.1, 0.9, 8).reshape(8, 1, 1)).long()
    model = UNet(1, 2, base_channels=2, depth=1)
    F.cross_entropy(model(images), labels).backward()
    whole = _gradient(model).clone()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda layer, given: sizes.append(len(given[0])))
    for at_once, forget in ((8, True), (4, True), (4, False), (3, True)):
        tried = f"accumulate(model, images, labels, {at_once}), 8 images"
        if forget:
            model.zero_grad()
        else:
            tried += ", called once more"
        sizes.clear()
        given = (model, images, labels, at_once)
        call(lambda *given: (accumulate(*given), True), *given, tried=tried)
        if not sizes:
            raise Wrong(f"{tried}: the model was never called.")
        if max(sizes) > at_once:
            raise Wrong(
                f"{tried}: the model was given {max(sizes)} images in one go, and there is memory "
                f"for {at_once}."
            )
        if sum(sizes) != 8:
            raise Wrong(f"{tried}: the model saw {sum(sizes)} images, not all 8 of them once.")
        if any(not torch.equal(values, before[n]) for n, values in model.state_dict().items()):
            raise Wrong(f"{tried}: the weights have changed. Expected their gradient, and no step.")
        if all(weights.grad is None for weights in model.parameters()):
            raise Wrong(f"{tried}: no weight has a gradient.")
        parts = ", ".join(map(str, sizes))
        if not torch.allclose(_gradient(model), whole, rtol=1e-3, atol=1e-6):
            raise Wrong(f"{tried}, in parts of {parts}: {_compare(_gradient(model), whole)}")


def _gradient(model: nn.Module) -> Tensor:
    """Join the gradients of all weights; zeros where there is none."""
    return torch.cat(
        [
            (torch.zeros_like(weights) if weights.grad is None else weights.grad).flatten()
            for weights in model.parameters()
        ]
    )


def _compare(ours: Tensor, theirs: Tensor) -> str:
    """Say how a gradient differs: by a factor, or otherwise."""
    factor = (ours @ theirs / (theirs @ theirs)).item()
    length = theirs.norm()
    if abs(factor - 1) > 0.01 and (ours - factor * theirs).norm() < 0.01 * length:
        return f"expected the gradient of the mean over all 8, got {factor:.3g} times that."
    return (
        "expected the gradient of the mean over all 8, got another one, off by "
        f"{((ours - theirs).norm() / length).item():.0%} of its length."
    )


@exercise(
    "6.3",
    "When a sum overflows in float16",
    answer="one number, the side of the smallest crops that overflow",
    hint="How much does one pixel add to the sum? How many pixels have eight crops? "
    "torch.finfo(torch.float16).max is the largest number there is.",
    shown="One pixel less on each side, and all is well: that is why it worked on small crops.",
)
def _(answer: Any) -> None:
    answer = int(answer) if _is_number(answer) and float(answer).is_integer() else answer
    if not isinstance(answer, int) or isinstance(answer, bool) or not 1 <= answer <= 2048:
        expect_answer(answer)
        raise Wrong(f"one side in whole pixels is expected, and you gave {describe(answer)}.")
    if math.isfinite(_sum_in_float16(answer)):
        raise Wrong(
            f"the side is not {answer}: eight crops of {answer}×{answer} sum to "
            f"{_sum_in_float16(answer):,.0f}, and float16 has that number."
        )
    if math.isinf(_sum_in_float16(answer - 1)):
        raise Wrong(
            f"the side is not {answer}: crops of {answer}×{answer} overflow, but those of "
            f"{answer - 1}×{answer - 1} do so, too."
        )


def _sum_in_float16(side: int) -> float:
    """Add up what patient E's loss does over eight crops of sure background."""
    ones = torch.ones(8, side, side, dtype=torch.float16)
    return float((ones + ones).sum().item())


@exercise(
    "6.4",
    "Four faults in one training step",
    answer="the repaired function train_step(model, optimizer, images, masks), which returns the "
    "loss",
    hint="Go through the lines in turn. Which values does the loss want as labels? What does "
    "F.cross_entropy want from the network, logits or probabilities? What is in .grad when a step "
    "begins? And what hangs on a loss that somebody keeps?",
    shown="Only one of the four stops a training. The others let it run, worse than it could be, "
    "and no message says so.",
)
def _(answer: Any) -> None:
    train_step = expect_function(answer, "train_step(model, optimizer, images, masks)")
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[:, 2:5] = 255
    images = masks[:, None] / 255
    networks = {
        "a network that is sure, and right, at every pixel": (40.0, 0.0),
        "a network that gives both classes the same chance": (0.0, math.log(2)),
    }
    for name, (slope, expected) in networks.items():
        tried = f"train_step of {name}, masks of 0 and 255"
        _expect_loss(train_step, slope, images, masks, expected, tried)
    _expect_steps(train_step, images, masks)


def _expect_loss(
    train_step: Any, slope: float, images: Tensor, masks: Tensor, expected: float, tried: str
) -> None:
    """Check the loss of a network whose logits are ± slope / 2, white pixels being class 1."""
    model = nn.Conv2d(1, 2, kernel_size=1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([-slope, slope]).reshape(2, 1, 1, 1))
        model.get_parameter("bias").copy_(torch.tensor([slope / 2, -slope / 2]))
    loss = _step(train_step, model, 0.1, images, masks, tried)
    value = float(loss.detach() if isinstance(loss, Tensor) else loss)
    if abs(value - expected) < 1e-3:
        return
    symptom = ""
    if expected == 0 and abs(value - math.log(1 + math.exp(-1))) < 1e-3:
        symptom = " That is the loss of logits 0 and 1: what made them so small?"
    elif expected == 0 and value > slope / 2:
        symptom = " As if every pixel were wrong: which class is white?"
    elif math.isfinite(value) and value > 10 * max(expected, 0.1):
        symptom = " Is it a sum over the pixels, where a mean is expected?"
    raise Wrong(f"{tried}: expected a loss of {expected:.3f}, got {value:.3f}.{symptom}")


def _step(
    train_step: Any, model: nn.Module, rate: float, images: Tensor, masks: Tensor, tried: str
) -> Any:
    """Do one step, and return its loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    loss = call(train_step, model, optimizer, images, masks, tried=tried)
    if (isinstance(loss, Tensor) and loss.numel() == 1) or _is_number(loss):
        return loss
    raise Wrong(f"{tried}: the loss is expected, one number, and {describe(loss)} came.")


def _expect_steps(train_step: Any, images: Tensor, masks: Tensor) -> None:
    """Compare the weights after each of three steps with those of a plain loop."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    losses = []
    for step in (1, 2, 3):
        before = torch.cat([weights.flatten() for weights in model.parameters()]).detach()
        optimizer.zero_grad()
        F.cross_entropy(plain(images), (masks > 0).long()).backward()
        own = _gradient(plain).norm()
        optimizer.step()
        tried = f"train_step of a small network, step {step}"
        losses.append(_step(train_step, model, 0.5, images, masks, tried))
        after, expected = (
            torch.cat([weights.flatten() for weights in one.parameters()]).detach()
            for one in (model, plain)
        )
        if torch.equal(before, after):
            raise Wrong(f"{tried}: no weight has moved.")
        if not torch.allclose(after, expected, rtol=1e-3, atol=1e-5):
            moved = ((after - before).norm() / 0.5 / own).item()
            earlier = "The steps before were right. " if step > 1 else ""
            raise Wrong(
                f"{tried}: {earlier}The weights have moved {moved:.2f} times as far as the "
                f"gradient of this step's loss says."
            )
    if any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses):
        raise Wrong(
            "train_step: all weights are right. But the loss that is returned holds its graph "
            "(requires_grad=True), and with it all maps of the step, as long as somebody keeps it."
        )
