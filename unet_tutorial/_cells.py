"""Synthetic cells that touch, as in a fluorescence or contrast image, made from a seed.

They are plain on purpose: bright cells of many sizes on a dark ground, in groups. Where two touch,
the line between them is dark in some places and cannot be seen in others, so that a network has to
learn to draw it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def generate(index: int, *, seed: int = 0, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image of cells.

    Parameters
    ----------
    index : int
        Number of the image, from 0; every image of a seed is drawn by itself.
    seed : int
        Number of the set, from 0.
    size : int
        Height and width in pixels.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        The image (size, size), float32 from 0 to 1; and the cells (size, size), int32: 0 is
        background, and each cell has a number of its own. Touching cells share their border.

    Examples
    --------
    >>> image, cells = generate(0, size=96)
    >>> image.shape, cells.dtype
    ((96, 96), dtype('int32'))
    """
    rng = np.random.default_rng([seed, index])
    cells = _groups(rng, size)
    # The line between two cells: where the next pixel is another cell.
    near = ndimage.maximum_filter(cells, 3)
    far = ndimage.minimum_filter(np.where(cells > 0, cells, 2**30), 3)
    line = (cells > 0) & ((near != cells) | (far != cells))
    own = np.concatenate([[0.22], rng.uniform(0.5, 0.8, int(cells.max()))])
    gray = own[cells] + 0.05 * _clouds(rng, size, 3)
    gray -= 0.3 * np.clip(0.55 + 0.6 * _clouds(rng, size, 10), 0, 1) * line
    gray = ndimage.gaussian_filter(gray, 1.0) + 0.05 * rng.standard_normal(gray.shape)
    return np.clip(gray, 0, 1).astype(np.float32), cells.astype(np.int32)


def _groups(rng: np.random.Generator, size: int) -> np.ndarray:
    """Throw ellipses, many beside one that is there; a pixel goes to the one it is deepest in."""
    rows, columns = np.mgrid[:size, :size]
    nearest = np.full((size, size), np.inf)
    cells = np.zeros((size, size), dtype=int)
    placed: list[tuple[float, float, float]] = []
    wanted = max(4, size * size // 900)
    for _ in range(40 * wanted):
        if len(placed) == wanted:
            break
        radius = rng.uniform(6, 12)
        row, column = rng.uniform(0, size, 2)
        if placed and rng.random() < 0.75:  # beside another one
            beside = placed[rng.integers(len(placed))]
            angle, reach = rng.uniform(0, 2 * np.pi), 0.93 * (radius + beside[2])
            row, column = beside[0] + reach * np.sin(angle), beside[1] + reach * np.cos(angle)
        apart = [np.hypot(row - r, column - c) - 0.9 * (radius + s) for r, c, s in placed]
        if min(apart, default=0) < 0 or not (0 <= row < size and 0 <= column < size):
            continue
        placed.append((row, column, radius))
        turn, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.3)
        down, right = rows - row, columns - column
        along = (np.cos(turn) * right + np.sin(turn) * down) / stretch
        across = (np.cos(turn) * down - np.sin(turn) * right) * stretch
        depth = np.hypot(along, across) / radius
        inside = (depth < 1) & (depth < nearest)
        cells[inside] = len(placed)
        nearest[inside] = depth[inside]
    return cells


def _clouds(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """Draw a smooth random field of mean 0 and deviation about 1."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), scale, mode="wrap")
    return field / max(float(field.std()), 1e-9)
