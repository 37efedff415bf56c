"""From a trained network and an image of any size to class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unet_tutorial.devices import Precision, autocast, choose_precision
from unet_tutorial.unet import UNet, fits


def predict(model: UNet, image: ArrayLike | Tensor, *, precision: Precision = "auto") -> np.ndarray:
    """Predict the class probabilities of every pixel of an image of any size.

    The image is continued beyond its borders by mirroring (paper, section 2), as far as the
    network needs to take it and to give back every pixel: a padded network gets the next multiple
    of 2^depth, an unpadded one its margin as well.

    Parameters
    ----------
    model : UNet
        A network; it stays in the mode (training or evaluation) that it is in, but predicts in
        evaluation mode: no drop-out, stored statistics for batch normalization.
    image : array or Tensor
        (H, W) or (C, H, W). Floating point as in training (0 to 1), or 8-bit, which is divided by
        255.
    precision : {"auto", "float32", "bfloat16", "float16"}
        As in `unet_tutorial.devices.choose_precision`.

    Returns
    -------
    numpy.ndarray
        (num_classes, H, W) float32; the classes of a pixel sum to 1. The class itself is
        ``predict(model, image).argmax(0)``.

    Raises
    ------
    ValueError
        If the image is not (H, W) or (C, H, W), has not the network's channels, is empty or holds
        values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from unet_tutorial import UNet
    >>> model = UNet(1, 2, base_channels=2, depth=2, padding="valid")
    >>> predict(model, np.zeros((50, 39))).shape
    (2, 50, 39)
    """
    pixels = _as_image(image, model)
    height, width = pixels.shape[-2:]
    padded, (top, left) = _mirror_to_fit(pixels, model)
    first = next(model.parameters())
    batch = torch.from_numpy(padded)[None].to(first.device)  # (1, C, H', W')
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            autocast(first.device, choose_precision(first.device, precision)),
        ):
            logits = model(batch.contiguous(memory_format=torch.channels_last))
    finally:
        model.train(was_training)
    probabilities = logits[0].float().softmax(dim=0).cpu().numpy()
    return probabilities[:, top : top + height, left : left + width]


def _as_image(image: Any, model: UNet) -> np.ndarray:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    given = array.shape
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != model.in_channels or 0 in array.shape:
        raise ValueError(
            f"expected an image of shape (H, W) or ({model.in_channels}, H, W), got {given}; a "
            "color image of shape (H, W, 3) becomes (3, H, W) with image.transpose(2, 0, 1)"
        )
    if array.dtype == np.uint8:
        array = array / np.float32(255)
    elif array.dtype.kind != "f":
        raise ValueError(
            f"expected floating-point or 8-bit values, got {array.dtype}: scale the image to 0..1"
        )
    if not np.isfinite(array).all():
        raise ValueError("the image holds values that are not finite (NaN or infinity)")
    return np.ascontiguousarray(array, dtype=np.float32)


def _mirror_to_fit(pixels: np.ndarray, model: UNet) -> tuple[np.ndarray, tuple[int, int]]:
    """Continue the image by mirroring; return it with where its output's first pixel lies."""
    margin = 0 if model.padding == "same" else 6 * 2**model.depth - 4  # lost on each side
    before, after, offset = [], [], []
    for length in pixels.shape[-2:]:
        wanted = length + 2 * margin
        while not fits(wanted, depth=model.depth, padding=model.padding):
            wanted += 1
        spare = wanted - length - 2 * margin
        before.append(margin + spare // 2)
        after.append(margin + spare - spare // 2)
        offset.append(spare // 2)
    mode: Any = "reflect" if min(pixels.shape[-2:]) > 1 else "edge"
    padded = np.pad(pixels, ((0, 0), *zip(before, after, strict=True)), mode=mode)
    return padded, (offset[0], offset[1])
