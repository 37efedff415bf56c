"""Looking into a network: the maps of its stages, and many channels as three colors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_tutorial.blocks import DoubleConvolution, DownSampling, UpSampling
from unet_tutorial.inference import predict


def stage_features(model: Any, image: np.ndarray, stage: str) -> np.ndarray:
    """Run a network on one image and return the maps that one of its stages puts out.

    Parameters
    ----------
    model : UNet, or a network of `unet_tutorial.partial`
        It stays in the mode that it is in.
    image : numpy.ndarray
        (C, H, W), as `unet_tutorial.inference.predict` takes it.
    stage : str
        ``"enc1"`` … from the top, ``"bottleneck"``, ``"dec1"`` … from the top.

    Returns
    -------
    numpy.ndarray
        (channels, h, w) float32.

    Raises
    ------
    KeyError
        If the network has no such stage.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> model = UNet(1, 2, base_channels=4)
    >>> stage_features(model, np.zeros((1, 32, 48)), "bottleneck").shape
    (64, 2, 3)
    """
    stages = _stages(model)
    if stage not in stages:
        raise KeyError(f"no stage {stage!r}; this network has {', '.join(stages)}")
    caught: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        caught.append(output[0].detach().float().cpu().clone())

    hook = stages[stage].register_forward_hook(keep)
    try:
        predict(model, image, precision="float32", tile=None)  # the maps of one pass
    finally:
        hook.remove()
    return caught[0].numpy()


def principal_colors(features: np.ndarray) -> np.ndarray:
    """Show many channels as one color picture: their three main directions as red, green, blue.

    Principal component analysis over the positions of the map. Places of the same color have
    similar features; the colors themselves mean nothing.

    Parameters
    ----------
    features : numpy.ndarray
        (channels, H, W), at least one channel.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) from 0 to 1. Each direction is cut at its 2nd and 98th percentile, and its sign
        is chosen so that the picture is the same on every machine.

    Examples
    --------
    >>> picture = principal_colors(np.random.default_rng(0).normal(size=(8, 5, 6)))
    >>> picture.shape, float(picture.min()), float(picture.max())
    ((5, 6, 3), 0.0, 1.0)
    """
    channels, height, width = features.shape
    values = torch.from_numpy(features.reshape(channels, -1).astype(np.float64)).T
    values = values - values.mean(dim=0)
    _, _, directions = torch.linalg.svd(values, full_matrices=False)
    directions = directions[:3]
    # A direction has no sign of its own: let its largest entry be positive.
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    scores = (values @ directions.T).numpy()  # (H·W, up to 3)
    scores = np.pad(scores, ((0, 0), (0, 3 - scores.shape[1])))
    low, high = np.percentile(scores, (2, 98), axis=0)
    picture = (scores - low) / np.where(high > low, high - low, 1.0)
    return np.clip(picture, 0, 1).reshape(height, width, 3)


def _stages(model: nn.Module) -> dict[str, nn.Module]:
    """Find the double convolutions and name them as `unet_tutorial.shapes.trace_shapes` does."""
    downs = [module for module in model.modules() if isinstance(module, DownSampling)]
    ups = [module for module in model.modules() if isinstance(module, UpSampling)]
    stages: dict[str, nn.Module] = {f"enc{k}": down.conv for k, down in enumerate(downs, start=1)}
    bottleneck = getattr(model, "bottleneck", None)
    if isinstance(bottleneck, DoubleConvolution):
        stages["bottleneck"] = bottleneck
    stages |= {f"dec{len(ups) - k}": up.conv for k, up in enumerate(ups)}
    return stages
