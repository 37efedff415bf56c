"""Arrays as ``data:`` addresses, with one rule for how values become gray."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor

from unet_tutorial.widgets._pictures import quantize, shrink


def data_url(
    array: np.ndarray, kind: Literal["png", "jpeg"] = "png", side: int | None = None
) -> str:
    """Write an array as the address of a picture; the same array gives the same text.

    Parameters
    ----------
    array : numpy.ndarray
        (H, W) or (H, W, 3): 8-bit values as they are, Booleans as black and white, floating-point
        ones from 0 (black) to 1 (white).
    kind : {"png", "jpeg"}
        ``"png"`` keeps every value; ``"jpeg"`` is smaller, for micrographs and soft maps.
    side : int, optional
        Shrink by averaging, until the longer side has at most this many pixels.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the array is no picture, or the kind is another.

    Examples
    --------
    >>> data_url(np.zeros((4, 4)))[:22]
    'data:image/png;base64,'
    >>> from unet_tutorial.widgets._pictures import read_url
    >>> read_url(data_url(np.array([[0.0, 1.0, 0.0, 1.0]]), side=2))
    array([[128, 128]], dtype=uint8)
    """
    array = np.asarray(array)
    if (array.ndim != 2 and array.shape[2:] != (3,)) or 0 in array.shape:
        raise ValueError(
            f"expected a picture of shape (H, W) or (H, W, 3), got {array.shape}: of a (1, H, W) "
            "image take image[0]"
        )
    if array.dtype != np.uint8 and array.dtype.kind not in "fb":
        raise ValueError(
            f"expected 8-bit, Boolean or floating-point values, got {array.dtype}: divide by the "
            "largest value to get 0 to 1"
        )
    if kind not in ("png", "jpeg"):
        raise ValueError(f"kind must be 'png' or 'jpeg', got {kind!r}")
    values = array / np.float32(255) if array.dtype == np.uint8 else array.astype(np.float32)
    if side is not None and values.ndim == 2:
        values = shrink(values, side)
    elif side is not None:
        values = np.stack([shrink(values[..., k], side) for k in range(3)], axis=-1)
    pixels = quantize(values, levels=256)
    if kind == "png":
        return _address(Image.fromarray(pixels), "png", optimize=True)
    # Thin colored lines would turn gray if colors were stored at half the resolution.
    return _address(Image.fromarray(pixels), "jpeg", quality=75, optimize=True, subsampling=0)


def overlay_url(classes: np.ndarray, colors: Sequence[str]) -> str:
    """Write a picture of a few colors, to lay over another, as the address of a PNG.

    Parameters
    ----------
    classes : numpy.ndarray
        (H, W): 0 is transparent, 1 the first color, 2 the second.
    colors : sequence of str
        As in ``"#e07b00"``.

    Returns
    -------
    str

    Examples
    --------
    >>> overlay_url(np.array([[0, 1], [2, 0]]), ["#e07b00", "#2f6fde"])[:22]
    'data:image/png;base64,'
    """
    picture = Image.fromarray(np.asarray(classes, np.uint8)).convert("P")
    picture.putpalette([value for c in ("#000", *colors) for value in ImageColor.getrgb(c)])
    return _address(picture, "png", optimize=True, transparency=0)


def _address(picture: Image.Image, kind: str, **options: Any) -> str:
    packed = io.BytesIO()
    picture.save(packed, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}"
