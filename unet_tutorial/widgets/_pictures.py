"""Small pictures as ``data:`` addresses, so that a widget carries all that it shows."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


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

    Examples
    --------
    >>> png_url(np.zeros((2, 2), np.uint8))[:22]
    'data:image/png;base64,'
    """
    return _url(picture, "png", optimize=True)


def jpeg_url(picture: np.ndarray, quality: int = 80) -> str:
    """Write a picture, (H, W) or (H, W, 3) bytes, as the address of a JPEG.

    Examples
    --------
    >>> jpeg_url(np.zeros((8, 8), np.uint8))[:23]
    'data:image/jpeg;base64,'
    """
    return _url(picture, "jpeg", quality=quality, optimize=True)


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


def _url(picture: np.ndarray, kind: str, **options: object) -> str:
    packed = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture, np.uint8)).save(packed, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}"
