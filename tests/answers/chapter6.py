"""Plausible wrong answers to the exercises of chapter 6, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def not_divided(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    model.zero_grad()
    for part, truth in zip(images.split(at_once), labels.split(at_once), strict=True):
        F.cross_entropy(model(part), truth).backward()


def by_the_number_of_parts(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    model.zero_grad()
    parts = images.split(at_once)
    for part, truth in zip(parts, labels.split(at_once), strict=True):
        (F.cross_entropy(model(part), truth) / len(parts)).backward()


def by_the_number_of_images(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    model.zero_grad()
    for part, truth in zip(images.split(at_once), labels.split(at_once), strict=True):
        (F.cross_entropy(model(part), truth) / len(images)).backward()


def forgets_in_between(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    for part, truth in zip(images.split(at_once), labels.split(at_once), strict=True):
        model.zero_grad()
        (F.cross_entropy(model(part), truth) * len(part) / len(images)).backward()


def never_forgets(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    for part, truth in zip(images.split(at_once), labels.split(at_once), strict=True):
        (F.cross_entropy(model(part), truth) * len(part) / len(images)).backward()


def all_in_one_go(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()


def last_part_left_out(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    model.zero_grad()
    for first in range(0, len(images) - at_once, at_once):
        part = slice(first, first + at_once)
        (F.cross_entropy(model(images[part]), labels[part]) * at_once / len(images)).backward()


def no_backward(model: Any, images: Tensor, labels: Tensor, at_once: int) -> Tensor:
    model.zero_grad()
    parts = zip(images.split(at_once), labels.split(at_once), strict=True)
    return sum(F.cross_entropy(model(part), truth) for part, truth in parts)


def with_steps(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for part, truth in zip(images.split(at_once), labels.split(at_once), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(part), truth).backward()
        optimizer.step()


Step = Callable[[Any, Any, Tensor, Tensor], Any]


def step(
    labels: Callable[[Tensor], Tensor] = lambda masks: (masks > 0).long(),
    outputs: Callable[[Tensor], Tensor] = lambda logits: logits,
    *,
    forget: bool = True,
    move: bool = True,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    hand_back: Callable[[Tensor], Any] = lambda loss: loss.detach(),
) -> Step:
    """Write a training step with a fault in one place."""

    def train_step(model: Any, optimizer: Any, images: Tensor, masks: Tensor) -> Any:
        if forget:
            optimizer.zero_grad()
        loss = loss_function(outputs(model(images)), labels(masks))
        loss.backward()
        if move:
            optimizer.step()
        return hand_back(loss)

    return train_step


def forgets_before_stepping(model: Any, optimizer: Any, images: Tensor, masks: Tensor) -> Any:
    loss = F.cross_entropy(model(images), (masks > 0).long())
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.detach()


WRONG: dict[str, list[tuple[Any, str]]] = {
    "6.1": [
        ((0.625, 4), "share is not 0.625: with half the time for such a share"),
        ((0.375, 4), "share is not 0.375"),
        ((0.8, 5), "would be 1.67 times as fast. It was 1.6"),
        ((75, 4), "share must lie between 0 and 1"),
        ((0.75, 2), "fastest is not 2: then 50% of the first time would be left"),
        ((0.75, 3.2), "fastest is not 3.2"),
        ((0.75, float("inf")), "fastest is not infinite"),
        ((0.75, 0.25), "fastest must be above 1"),
        (0.75, "(share, fastest), and you gave 0.75"),
    ],
    "6.2": [
        (
            not_divided,
            "in parts of 4, 4: expected the gradient of the mean over all 8, got 2",
        ),
        (by_the_number_of_parts, "in parts of 3, 3, 2: "),
        (by_the_number_of_images, "got 0.125 times that"),
        (forgets_in_between, "in parts of 4, 4: expected the gradient of the mean over all 8, got"),
        (never_forgets, "called once more, in parts of 4, 4: expected the gradient of the"),
        (all_in_one_go, "given 8 images in one go, and there is memory for 4"),
        (last_part_left_out, "never called"),
        (no_backward, "no weight has a gradient"),
        (with_steps, "the weights have changed"),
    ],
    "6.3": [
        (63, "sum to 63,488, and float16 has that number"),
        (91, "crops of 91×91 overflow, but those of 90×90 do so, too"),
        (181, "those of 180×180 do so, too"),
        (256, "those of 255×255"),
        (32, "sum to 16,384"),
        (65504, "one side in whole pixels is expected"),
        (63.5, "one side in whole pixels is expected, and you gave 63.5"),
    ],
    "6.4": [
        (step(labels=lambda masks: masks.long()), "IndexError: Target 255 is out of bounds"),
        (step(labels=lambda masks: masks / 255), "stopped with RuntimeError"),
        (step(labels=lambda masks: (masks == 0).long()), "which class is white?"),
        (step(outputs=lambda logits: logits.softmax(dim=1)), "the loss of logits 0 and 1"),
        (step(outputs=lambda logits: logits.argmax(dim=1).float()), "stopped with RuntimeError"),
        (step(forget=False), "step 2: The steps before were right"),
        (forgets_before_stepping, "step 1: no weight has moved"),
        (step(move=False), "step 1: no weight has moved"),
        (step(hand_back=lambda loss: loss), "holds its graph"),
        (step(hand_back=lambda loss: None), "returned nothing"),
        (
            step(loss_function=lambda a, b: F.cross_entropy(a, b, reduction="sum")),
            "Is it a sum over the pixels",
        ),
    ],
}


def accumulate_sums(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    for weights in model.parameters():
        weights.grad = None
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        loss = F.cross_entropy(model(images[part]), labels[part], reduction="sum")
        (loss / labels.numel()).backward()


def step_that_forgets_at_the_end(model: Any, optimizer: Any, images: Tensor, masks: Tensor) -> Any:
    loss = F.cross_entropy(model(images), masks.long() // 255)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def step_in_probabilities(model: Any, optimizer: Any, images: Tensor, masks: Tensor) -> Any:
    optimizer.zero_grad(set_to_none=False)
    loss = F.nll_loss(model(images).log_softmax(dim=1), (masks / 255).long())
    loss.backward()
    optimizer.step()
    return loss.detach()


RIGHT: dict[str, list[Any]] = {
    "6.1": [[3 / 4, 4.0]],
    "6.2": [accumulate_sums],
    "6.3": [64.0],
    "6.4": [step_that_forgets_at_the_end, step_in_probabilities],
}
