"""Small pictures as ``data:`` addresses, so that a widget carries all that it shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor


def shrink(values: np.ndarray, longest: int) -> np.ndarray:
    """Shrink a picture by averaging, until its longer side has at most this many pixels.

    Parameters
    ----------
    values : numpy.ndarray
        (H, W).
    longest : int
        Pixels. A smaller picture stays as it is.

    Returns
    -------
    numpy.ndarray
        (h, w) float32.

    Examples
    --------
    >>> shrink(np.array([[0.0, 2.0], [4.0, 6.0]]), 1)
    array([[3.]], dtype=float32)
    """
    values = np.asarray(values, np.float32)
    height, width = values.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return values
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX))


def quantize(values: np.ndarray, levels: int) -> np.ndarray:
    """Turn values from 0 to 1 into bytes, of which only a few differ: that packs well.

    Examples
    --------
    >>> quantize(np.array([0.0, 0.1, 0.5, 1.0]), levels=6)
    array([  0,  51, 153, 255], dtype=uint8)
    """
    steps = np.floor(np.clip(values, 0, 1) * (levels - 1) + 0.5)
    return np.round(steps * 255 / (levels - 1)).astype(np.uint8)


def png_url(picture: np.ndarray) -> str:
    """Write a picture, (H, W) or (H, W, 3) bytes, as the address of a PNG.

    A picture of a few hundred pixels is not compressed: its address is then the same text under
    every version of the compressing library, and nbval can compare it.

    Examples
    --------
    >>> png_url(np.zeros((2, 2), np.uint8))[:22]
    'data:image/png;base64,'
    """
    tiny = picture.size <= 400
    options = {"compress_level": 0} if tiny else {"optimize": True}
    return _url(_bytes(picture), "png", **options)


def jpeg_url(picture: np.ndarray, quality: int = 80) -> str:
    """Write a picture, (H, W) or (H, W, 3) bytes, as the address of a JPEG.

    Examples
    --------
    >>> jpeg_url(np.zeros((8, 8), np.uint8))[:23]
    'data:image/jpeg;base64,'
    """
    return _url(_bytes(picture), "jpeg", quality=quality, optimize=True)


def read_url(address: str) -> np.ndarray:
    """Read a picture back.

    Examples
    --------
    >>> read_url(png_url(np.full((1, 2), 7, np.uint8)))
    array([[7, 7]], dtype=uint8)
    """
    packed = base64.b64decode(address.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(packed)))


def gray_bytes(image: np.ndarray, longest: int) -> np.ndarray:
    """Make a small gray picture of an image (C, H, W), whatever its type and range.

    Examples
    --------
    >>> gray_bytes(np.array([[[0.0, 0.5, 1.0]]]), longest=8)
    array([[  0, 128, 255]], dtype=uint8)
    """
    small = shrink(np.asarray(image, np.float32).mean(axis=0), longest)
    low, high = float(small.min()), float(small.max())
    return quantize((small - low) / ((high - low) or 1.0), levels=256)


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
        return png_url(pixels)
    # Thin colored lines would turn gray if colors were stored at half the resolution.
    return _url(Image.fromarray(pixels), "jpeg", quality=75, optimize=True, subsampling=0)


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
    return _url(picture, "png", optimize=True, transparency=0)


def _bytes(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture, np.uint8))


def _url(picture: Image.Image, kind: str, **options: Any) -> str:
    packed = io.BytesIO()
    picture.save(packed, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}"
