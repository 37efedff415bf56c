"""Synthetic electron micrographs of nerve tissue, made from a seed.

They imitate serial-section micrographs of the fly's nerve cord: cells of very different sizes
packed into each other, dark membranes of varying width and stain, mitochondria with dark rims of
their own, vesicles, smudges of stain, noise. What is drawn is known, so labels, cells and
mitochondria are exact.

Shapes come from one stream of random numbers and the stain from another. Every decision about a
label compares numbers that were rounded to a coarse grid before, so that the last bit of a
floating-point sum, which differs between processors, decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

_GRID = 64.0  # positions and distances are rounded to 1/64 pixel before they decide anything


class Membranes(NamedTuple):
    """One synthetic micrograph with everything that is known about it.

    Attributes
    ----------
    image : numpy.ndarray
        (H, W) float32 from 0 to 1, in steps of 1/255.
    label : numpy.ndarray
        (H, W) uint8: 1 on membranes, 0 in cells.
    instances : numpy.ndarray
        (H, W) int32: number of the cell, 0 on membranes.
    mitochondria : numpy.ndarray
        (H, W) bool: mitochondria with their rims; all of them lie in cells.
    """

    image: np.ndarray
    label: np.ndarray
    instances: np.ndarray
    mitochondria: np.ndarray


def generate(index: int, *, seed: int = 0, size: int = 512) -> Membranes:
    """Draw one synthetic micrograph.

    Parameters
    ----------
    index : int
        Number of the image; every image of a seed is drawn by itself.
    seed : int
        Number of the set.
    size : int
        Height and width in pixels; a pixel stands for about 4 nm.

    Returns
    -------
    Membranes
        The same label on every machine, and the same image within one gray level.

    Examples
    --------
    >>> picture = generate(0, seed=0, size=128)
    >>> picture.image.shape, sorted({int(value) for value in picture.label.flat})
    ((128, 128), [0, 1])
    """
    shape, stain = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence([seed, index]).spawn(2)
    )
    label, instances, thickness = _cells(shape, size)
    depth = ndimage.distance_transform_edt(label == 0)  # distance from the nearest membrane
    mitochondria, rim, cristae = _mitochondria(shape, depth)
    gray = _cytoplasm(stain, instances)
    gray -= _vesicles(stain, depth, mitochondria)
    gray -= np.where(mitochondria, 0.22 + 0.09 * cristae, 0.0)
    gray -= 0.27 * np.exp(-((rim / 1.5) ** 2))
    gray -= _membrane_stain(stain, label, thickness)
    return Membranes(_photograph(stain, gray), label, instances, mitochondria)


def _field(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """Draw a smooth random field, (size, size), mean 0, that varies over ``scale`` pixels."""
    knots = int(np.ceil(size / scale)) + 5
    grid = rng.random((knots, knots)) - 0.5
    at = np.arange(size) / scale + 1.5
    rows = _spline(grid, at)
    return 4.2 * _spline(rows.T, at).T


def _spline(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Evaluate cubic B-splines along the first axis; plain sums, the same on every machine."""
    whole = np.floor(at).astype(int)
    t = (at - whole)[:, None]
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    total = np.zeros((len(at), knots.shape[1]))
    for offset, weight in enumerate(weights):
        total += weight * knots[whole - 1 + offset]
    return total


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.round(values * _GRID) / _GRID


def _cells(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack cells: label, cell numbers, and how thick the membrane is at each of its pixels.

    Points, denser in some places than in others, are joined to small groups; a cell is all that is
    nearest to one group, seen through a bent plane. Then corners are rounded, which leaves the
    triangles of thick gray membrane where three cells meet.
    """
    margin, spacing = 40, 15.0
    bent_rows = 9 * _field(rng, size, 64) + 4.0 * _field(rng, size, 23)
    bent_columns = 9 * _field(rng, size, 64) + 4.0 * _field(rng, size, 23)
    across = size + 2 * margin
    tries = rng.random((int(across**2 / spacing**2), 2)) * across - margin
    crowd = _field(rng, across, 75)
    inside = np.clip((tries + margin).astype(int), 0, across - 1)
    likely = np.clip(0.50 + 0.38 * crowd[inside[:, 0], inside[:, 1]], 0.12, 1)
    kept = _rounded(rng.random(len(tries))) < _rounded(likely)
    points = _rounded(tries[kept])
    tree = cKDTree(points)
    group = _groups(rng, points, tree)

    rows, columns = np.mgrid[0:size, 0:size].astype(float)
    seen = np.stack([rows + bent_rows, columns + bent_columns], axis=-1)
    _, nearest = tree.query(_rounded(seen).reshape(-1, 2))
    cells = group[nearest].reshape(size, size)

    border = np.zeros((size, size), dtype=bool)
    border[:-1] |= cells[:-1] != cells[1:]
    border[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    distance = _rounded(ndimage.distance_transform_edt(~border))
    width = _rounded(np.clip(2.35 + 0.65 * _field(rng, size, 40), 1.5, 4.4))
    corner = _rounded(np.clip(7.5 + 3.5 * _field(rng, size, 90), 3.0, 13.0))
    core = distance > width + corner  # opening with a disc rounds the corners
    interior = (_rounded(ndimage.distance_transform_edt(~core)) < corner + 0.5) & (distance > width)
    small = (distance > width) & ~interior
    # Cells too slender to hold the disc keep their middle.
    slender, number = ndimage.label(small)
    sizes = np.bincount(slender.ravel(), minlength=number + 1)
    deepest = ndimage.maximum(distance, slender, np.arange(number + 1))
    keep = (sizes > 90) & (np.asarray(deepest) > 5.0)
    keep[0] = False
    interior |= keep[slender]
    instances, number = ndimage.label(interior)
    sizes = np.bincount(instances.ravel(), minlength=number + 1)
    instances[sizes[instances] < 40] = 0
    label = (instances == 0).astype(np.uint8)
    names = np.unique(instances)
    renumber = np.zeros(int(names.max()) + 1, dtype=np.int32)
    renumber[names] = np.arange(len(names))
    thickness = ndimage.distance_transform_edt(label)
    return label, renumber[instances], thickness


def _groups(rng: np.random.Generator, points: np.ndarray, tree: cKDTree) -> np.ndarray:
    """Join neighboring points, so that cells come in many sizes and shapes."""
    number = len(points)
    leader = np.arange(number)
    members = np.ones(number, dtype=int)
    wanted = rng.choice([1, 2, 2, 3, 3, 4, 6, 10, 22], number)
    _, neighbors = tree.query(points, k=min(7, number))

    def lead(point: int) -> int:
        while leader[point] != point:
            point = leader[point]
        return point

    for point in np.tile(rng.permutation(number), 3):
        mine = lead(point)
        for neighbor in neighbors[point, 1:]:
            other = lead(neighbor)
            if other != mine and members[mine] + members[other] <= wanted[mine]:
                leader[other] = mine
                members[mine] += members[other]
                break
    return np.array([lead(point) for point in range(number)])


def _mitochondria(
    rng: np.random.Generator, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place mitochondria where a cell has room: mask, distance from the rim, folds inside."""
    size = len(depth)
    mask = np.zeros(depth.shape, dtype=bool)
    rim = np.full(depth.shape, 99.0)
    cristae = np.zeros(depth.shape)
    for _ in range(size * size // 1500):
        row, column = rng.integers(0, size, 2)
        stretch, turn, large, bend, phase = rng.random(5)
        room = depth[row, column]
        if room < 10 or mask[row, column] or rng.random() < 0.45:
            continue
        short = min(room - 2.5, 7 + 30 * large)
        long = short * (1.0 + 0.9 * stretch)
        reach = int(long) + 6
        window = (
            slice(max(0, row - reach), min(size, row + reach)),
            slice(max(0, column - reach), min(size, column + reach)),
        )
        rows, columns = np.mgrid[window]
        cosine, sine = np.cos(np.pi * turn), np.sin(np.pi * turn)
        along = ((columns - column) * cosine + (rows - row) * sine) / long
        across = (-(columns - column) * sine + (rows - row) * cosine) / short
        across = across + 0.5 * (bend - 0.5) * along**2
        outward = _rounded((np.sqrt(along**2 + across**2) - 1) * short)
        inside = outward <= 0
        if (depth[window][inside] < 2).any() or mask[window][inside].any():
            continue
        mask[window] |= inside
        near = np.where(np.abs(outward + 1.0) < 5, np.abs(outward + 1.0), 99.0)
        rim[window] = np.minimum(rim[window], near)
        folds = np.sin(
            along * long * 0.8
            + 3.2 * np.sin(across * short * 0.16 + along * long * 0.11 + 6 * phase)
        )
        cristae[window] += np.where(outward < -3, folds, 0.0)
    return mask, rim, cristae


def _cytoplasm(rng: np.random.Generator, instances: np.ndarray) -> np.ndarray:
    """Gray of the cells: each its own, cloudy."""
    size = len(instances)
    own = 0.13 * (rng.random(int(instances.max()) + 1) - 0.5)
    gray = 0.665 + own[instances] + 0.045 * _field(rng, size, 50)
    return gray + 0.060 * _field(rng, size, 7) + 0.065 * _field(rng, size, 3.2)


def _vesicles(rng: np.random.Generator, depth: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Darkness of vesicles (small rings) and of cut microtubules and grains (dots)."""
    size = len(depth)
    dark = np.zeros(depth.shape)
    crowd = _field(rng, size, 45)
    at = rng.integers(5, max(6, size - 5), (size * size // 90, 2))
    for (row, column), chance, ring in zip(
        at, rng.random(len(at)), rng.random(len(at)), strict=True
    ):
        likely = 0.45 + 0.50 * crowd[row, column]
        if depth[row, column] < 4 or taken[row, column] or chance > likely:
            continue
        window = (slice(row - 5, row + 6), slice(column - 5, column + 6))
        if dark[window].shape != (11, 11):
            continue
        distance = np.hypot(*np.mgrid[-5:6, -5:6])
        if ring < 0.6:
            radius = 2.2 + 1.6 * ring
            dark[window] += (0.26 + 0.26 * ring) * np.exp(-(((distance - radius) / 0.9) ** 2))
        else:
            dark[window] += 0.8 * (ring - 0.3) * np.exp(-((distance / 1.3) ** 2))
    return dark


def _membrane_stain(
    rng: np.random.Generator, label: np.ndarray, thickness: np.ndarray
) -> np.ndarray:
    """Darkness of the membranes: two dark lines with gray between where they are thick."""
    size = len(label)
    strength = np.clip(0.45 + 0.10 * _field(rng, size, 28), 0.16, 0.75)
    line = np.exp(-(((thickness - 1.8) / 1.7) ** 2))  # along the edge of each cell
    fill = 0.62 * (thickness > 0)
    dark = strength * np.maximum(line * (thickness > 0), fill)
    faint = np.clip(1.0 + 0.50 * _field(rng, size, 30), 0.36, 1.0)  # cut obliquely
    # Smudges: stain that lies over membranes and their surroundings.
    cloud = np.clip(_field(rng, size, 24) - 1.35, 0, None)
    return dark * faint + 0.42 * cloud


def _photograph(rng: np.random.Generator, gray: np.ndarray) -> np.ndarray:
    """Blur, uneven light, grain; then eight bits."""
    size = len(gray)
    sharp = ndimage.gaussian_filter(gray, 0.9)
    grain = ndimage.gaussian_filter(rng.random(gray.shape) - 0.5, 0.75)
    light = 1.0 + 0.07 * _field(rng, size, 170)
    exposed = sharp * light + 0.72 * grain
    return (np.clip(np.round(255 * exposed), 0, 255) / 255).astype(np.float32)
