"""How many labeled slices a beginning is worth: six ways to start, on 1 to 20 slices.

The networks differ in the weights of their contracting path when the training begins, and in
whether these may change; ``scripts/encoders.py`` trains them all. Chapter 8 tells what came out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.encoders import EncoderUNet, freeze
from unet_tutorial.inference import predict
from unet_tutorial.lesson import Lesson
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import mean_and_spread, read_results
from unet_tutorial.training import TrainingConfig, TrainingResult, fit

ENCODER = "efficientnet-lite0"
SLICES = (1, 3, 10, 20)


@dataclass(frozen=True)
class Arm:
    """One way to begin.

    Attributes
    ----------
    weights : {None, "imagenet", "membranes"}
        What the contracting path has learned from: nothing, photographs, synthetic membranes.
    frozen : bool
        Whether it stays as it is.
    encoder : str or None
        Name for `unet_tutorial.encoders.build_encoder`; None: the U-Net of the book.
    """

    weights: Literal["imagenet", "membranes"] | None = None
    frozen: bool = False
    encoder: str | None = ENCODER


ARMS: dict[str, Arm] = {
    "scratch": Arm(),
    "ImageNet, frozen": Arm("imagenet", frozen=True),
    "ImageNet, fine-tuned": Arm("imagenet"),
    "membranes, frozen": Arm("membranes", frozen=True),
    "membranes, fine-tuned": Arm("membranes"),
    "plain U-Net": Arm(encoder=None),
}


def build_arm(name: str, lesson: Lesson, learned: Mapping[str, Tensor] | None = None) -> Any:
    """Build a network for one of the ways to begin.

    What is not learned is drawn from the lesson's seed: of two arms with the same encoder, the
    expansive paths begin alike.

    Parameters
    ----------
    name : str
        One of `ARMS`.
    lesson : Lesson
        Data, width and seed.
    learned : mapping of str to Tensor, optional
        Weights of an encoder that was trained on synthetic membranes, see `learn_membranes`.

    Returns
    -------
    EncoderUNet or UNet

    Raises
    ------
    ValueError
        If there is no such arm, or it needs ``learned``.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> model = build_arm("scratch", setup("smoke", "membranes"))
    membranes: ...
    profile smoke ...
    >>> model.depth, model.frozen
    (5, False)
    """
    if name not in ARMS:
        raise ValueError(f"there is no arm {name!r}; the arms are {', '.join(ARMS)}")
    arm = ARMS[name]
    if arm.encoder is None:
        return lesson.build()
    if arm.weights == "membranes" and learned is None:
        raise ValueError(f"{name!r} begins with what was learned before: pass learned=")
    torch.manual_seed(lesson.seed)
    data = lesson.data
    weights: Literal["imagenet"] | None = "imagenet" if arm.weights == "imagenet" else None
    model = EncoderUNet(arm.encoder, data.in_channels, data.num_classes, weights=weights)
    if arm.weights == "membranes" and learned is not None:
        model.encoder.load_state_dict(learned)
    return freeze(model) if arm.frozen else model


def learn_membranes(
    lesson: Lesson, config: TrainingConfig, *, n_images: int = 20, size: int = 512
) -> tuple[dict[str, Tensor], TrainingResult]:
    """Train the scratch arm on synthetic membranes, and take its encoder out.

    Parameters
    ----------
    lesson : Lesson
        Seed and device.
    config : TrainingConfig
        Budget.
    n_images, size : int
        Of the synthetic set, which shares no image with the one that a chapter trains on.

    Returns
    -------
    dict of str to Tensor, TrainingResult
        The encoder's weights, for `build_arm`, and the training that they come from.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> lesson = setup("smoke", "membranes")
    membranes: ...
    profile smoke ...
    >>> short = TrainingConfig(steps=1, batch_size=2, crop_size=64)
    >>> learned, result = learn_membranes(lesson, short, n_images=2, size=64)
    membranes: ...
    >>> result.steps_done, "_conv_stem.weight" in learned
    (1, True)
    """
    made = load("membranes", seed=1000 + lesson.seed, n_images=n_images, size=size)
    model = build_arm("scratch", lesson)
    result = fit(model, made, config, report=None)
    learned = {name: kept.cpu().clone() for name, kept in model.encoder.state_dict().items()}
    return learned, result


def score(model: Any, data: SegmentationData) -> dict[str, float]:
    """Score a network on images that it was not trained on.

    Parameters
    ----------
    model : EncoderUNet or UNet
        Trained.
    data : SegmentationData
        The images; all are used.

    Returns
    -------
    dict of str to float
        ``pixel_error``, ``dice``, ``v_rand``, ``v_info``, as in `unet_tutorial.metrics.evaluate`.
    """
    maps = [predict(model, image)[1] for image in data.images]
    scores = evaluate(maps, data.labels).as_dict()
    return {name: scores[name] for name in ("pixel_error", "dice", "v_rand", "v_info")}


def stored_curves(
    value: str, *, results: str = "encoders"
) -> dict[str, dict[int, tuple[float, float]]]:
    """Read what every arm came to on every number of slices.

    Parameters
    ----------
    value : str
        ``"pixel_error"``, ``"dice"``, ``"v_rand"`` or ``"v_info"``.
    results : str
        File in ``book/results``.

    Returns
    -------
    dict of str to dict of int to (float, float)
        By arm and number of slices: mean over the seeds and standard deviation.
    """
    rows = [row for row in read_results(results)["rows"] if row["part"] == "scores"]
    curves: dict[str, dict[int, tuple[float, float]]] = {}
    for (arm, slices), found in mean_and_spread(rows, ["arm", "slices"], value).items():
        curves.setdefault(arm, {})[slices] = found
    return curves


def chosen_rate(rows: Sequence[Mapping[str, Any]], arm: str) -> float:
    """Take the learning rate that did best on training slices which the network had not seen.

    Parameters
    ----------
    rows : sequence of mapping
        Rows whose ``part`` is ``"learning rate"`` count.
    arm : str
        One of `ARMS`.

    Returns
    -------
    float

    Examples
    --------
    >>> rows = [
    ...     {"part": "learning rate", "arm": "scratch", "learning_rate": rate, "pixel_error": error}
    ...     for rate, error in ((1e-3, 0.12), (3e-3, 0.1), (1e-2, 0.2))
    ... ]
    >>> chosen_rate(rows, "scratch")
    0.003
    """
    tried = [row for row in rows if row["part"] == "learning rate" and row["arm"] == arm]
    return float(min(tried, key=lambda row: row["pixel_error"])["learning_rate"])
