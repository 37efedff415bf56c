"""Taking a trained network apart: treat its skip connections, weigh what they bring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial.blocks import UpSampling, center_crop
from unet_tutorial.inference import predict
from unet_tutorial.unet import UNet

# What a skip may carry, and how that is called.
WAYS = {
    "own": "as it is",
    "cut": "cut",
    "mean": "only its mean",
    "other": "the other image's",
}
Treatment = tuple[str, float]  # one of WAYS, and a factor


@contextlib.contextmanager
def cut_skips(model: UNet, *levels: int) -> Iterator[UNet]:
    """Let nothing pass through some skip connections while the block runs.

    The maps that the skips carry are replaced by zeros, which is what a severed connection hands
    on; the weights stay. (Chapter 4.)

    Parameters
    ----------
    model : UNet
        A network with ``skip="concat"`` or ``"add"``.
    *levels : int
        Levels to cut: 1 is the highest skip, at full resolution.

    Yields
    ------
    UNet
        The same network.

    Raises
    ------
    ValueError
        If the network has no skips, or not at that level.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = UNet(1, 2, base_channels=4, depth=2).eval()
    >>> image = torch.rand(1, 1, 16, 16)
    >>> whole = model(image)
    >>> with cut_skips(model, 1):
    ...     torch.equal(model(image), whole)
    False
    >>> torch.equal(model(image), whole)
    True
    """
    if model.options["skip"] == "none":
        raise ValueError(
            "this network has no skip connection to cut: it was built with skip='none'"
        )
    with treat_skips(model, dict.fromkeys(levels, ("cut", 1.0))):
        yield model


@contextlib.contextmanager
def treat_skips(
    model: UNet, treatments: Mapping[int, Treatment], other: np.ndarray | None = None
) -> Iterator[UNet]:
    """Let skip connections carry something else while the block runs.

    Parameters
    ----------
    model : UNet
        A network with ``skip="concat"`` or ``"add"``.
    treatments : mapping of int to (str, float)
        By level, 1 the highest skip: what it carries, ``"own"``, ``"cut"``, ``"mean"`` or
        ``"other"``, and the factor on it.
    other : numpy.ndarray, optional
        The other image, (C, H, W), as large as the one that the network is run on.

    Yields
    ------
    UNet
        The same network.

    Raises
    ------
    ValueError
        If the network has no skips or not at that level, a treatment is unknown, or the other
        image is missing.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = UNet(1, 2, base_channels=2, depth=2).eval()
    >>> image = torch.rand(1, 1, 16, 16)
    >>> with torch.inference_mode(), treat_skips(model, {1: ("mean", 0.0)}):
    ...     treated = model(image)
    >>> with torch.inference_mode(), cut_skips(model, 1):
    ...     torch.equal(model(image), treated)
    True
    """
    if model.options["skip"] == "none" and treatments:
        raise ValueError("this network has no skip connection: it was built with skip='none'")
    strangers: list[Tensor] = []
    for level, (way, _) in treatments.items():
        if not 1 <= level <= model.depth:
            raise ValueError(f"there is no skip at level {level}: levels are 1 to {model.depth}")
        if way not in WAYS:
            raise ValueError(f"a skip can be one of {', '.join(WAYS)}, not {way!r}")
        if way == "other" and other is None:
            raise ValueError(f"skip {level} is to carry another image's maps: pass other=")
    if any(way == "other" for way, _ in treatments.values()):
        strangers = _carried(model, np.asarray(other, np.float32))

    def treat(level: int, way: str, scale: float) -> Any:
        def hook(module: UpSampling, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            below, carried = inputs
            if way == "other":
                carried = strangers[level - 1].to(carried)
            if way == "mean":  # of the part that the joint takes
                part = center_crop(carried, module.up(below).shape[-2:])
                carried = part.mean((-2, -1), keepdim=True).expand_as(carried)
            return below, torch.zeros_like(carried) if way == "cut" else carried * scale

        return hook

    hooks = [
        _up_sampling(model, level).register_forward_pre_hook(treat(level, way, scale))
        for level, (way, scale) in treatments.items()
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def _carried(model: UNet, image: np.ndarray) -> list[Tensor]:
    """Run a network on an image (C, H, W) and return what its skips carry, from the top."""
    caught: list[Tensor] = []
    hooks = [
        down.register_forward_hook(lambda module, inputs, output: caught.append(output[0]))
        for down in model.contracting
    ]
    try:
        with torch.inference_mode():
            model(torch.from_numpy(image)[None].to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return caught


def skip_shares(model: UNet, image: np.ndarray) -> dict[int, float]:
    """Measure how much of each joined convolution's output comes from its skip connection.

    A convolution over concatenated maps is a sum of two convolutions, one over what came from
    below and one over what the skip carried. The share of the skip is its part of the two sums'
    variances, over the positions of one image.

    Parameters
    ----------
    model : UNet
        A network with ``skip="concat"``.
    image : numpy.ndarray
        (C, H, W), as `unet_tutorial.inference.predict` takes it.

    Returns
    -------
    dict of int to float
        By level, from the top: 0 (the skip adds nothing) to 1 (only the skip counts).

    Raises
    ------
    ValueError
        If the network does not concatenate.

    Examples
    --------
    >>> shares = skip_shares(UNet(1, 2, base_channels=2, depth=2), np.random.rand(1, 16, 16))
    >>> sorted(shares), all(0 <= share <= 1 for share in shares.values())
    ([1, 2], True)
    """
    if model.options["skip"] != "concat":
        raise ValueError("only a concatenation has two halves: build the network with 'concat'")
    shares: dict[int, float] = {}

    def weigh(level: int) -> Any:
        def hook(module: nn.Conv2d, inputs: tuple[Tensor]) -> None:
            joined = inputs[0].float()
            half = joined.shape[1] // 2  # the code article's order: upsampled, then skip
            below, skip = (
                F.conv2d(part, weight, padding=module.padding).var(dim=(0, 2, 3)).sum().item()
                for part, weight in (
                    (joined[:, :half], module.weight[:, :half]),
                    (joined[:, half:], module.weight[:, half:]),
                )
            )
            shares[level] = skip / (below + skip) if below + skip else 0.0

        return hook

    hooks = [
        _up_sampling(model, level).conv.conv_block[0].register_forward_pre_hook(weigh(level))
        for level in range(1, model.depth + 1)
    ]
    try:
        predict(model, image, precision="float32", tile=None)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(sorted(shares.items()))


def _up_sampling(model: UNet, level: int) -> Any:
    return model.expansive[model.depth - level]
