"""Synthetic electron micrographs of nerve tissue, made from a seed.

They imitate serial-section micrographs of the fly's nerve cord: cells of very different sizes
packed into each other, dark membranes of varying width and stain, some of them cut obliquely,
mitochondria with dark double rims and folds of their own, vesicles, microtubules, synapses, noise.
What is drawn is known, so labels, cells and mitochondria are exact.

Shapes come from one stream of random numbers and the stain from another. Every decision about a
label compares whole numbers, or numbers rounded to a coarse grid, so that the last bit of a
floating-point sum, which differs between processors, decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

_GRID = 16  # positions and distances are whole sixteenths of a pixel before they decide anything


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


class _Cells(NamedTuple):
    """Packed cells: their number and direction at each pixel, and where membranes are."""

    label: np.ndarray  # (H, W) uint8
    instances: np.ndarray  # (H, W) int32
    turn: np.ndarray  # (H, W) direction of a long cell, radians from the columns' axis
    long: np.ndarray  # (H, W) bool: in a long cell
    border: np.ndarray  # (H, W) pixels to the line between two cells


def generate(index: int, *, seed: int = 0, size: int = 512) -> Membranes:
    """Draw one synthetic micrograph.

    Parameters
    ----------
    index : int
        Number of the image, from 0; every image of a seed is drawn by itself.
    seed : int
        Number of the set, from 0.
    size : int
        Height and width in pixels, at least 32; a pixel stands for about 4 nm.

    Returns
    -------
    Membranes
        The same label on every machine, and the same image within one gray level.

    Raises
    ------
    ValueError
        If ``index`` or ``seed`` is negative or ``size`` below 32.

    Examples
    --------
    >>> picture = generate(0, seed=0, size=128)
    >>> picture.image.shape, sorted({int(value) for value in picture.label.flat})
    ((128, 128), [0, 1])
    """
    if index < 0 or seed < 0 or size < 32:
        raise ValueError(
            f"index and seed must be 0 or more and size at least 32 pixels, "
            f"but index={index}, seed={seed}, size={size} was given"
        )
    shape, stain = (
        np.random.default_rng(stream) for stream in np.random.SeedSequence([seed, index]).spawn(2)
    )
    cells = _cells(shape, size)
    room = _distance(cells.label == 0)  # pixels to the nearest membrane
    mitochondria, inward, folds = _mitochondria(shape, room)
    # Haze: places where membranes lie flat in the slice.
    haze = np.clip(1.2 * _field(stain, size, 48) - 0.85, 0, 0.8)
    gray = _cytoplasm(stain, cells, haze)
    gray -= _granules(stain, cells, room, mitochondria, haze)
    gray = np.where(mitochondria, _matrix(stain, inward, folds), gray)
    lines = _membrane_stain(stain, cells, room, haze)
    gray -= np.hypot(lines, _synapses(stain, cells))
    return Membranes(_photograph(stain, gray), cells.label, cells.instances, mitochondria)


def _field(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """Draw a smooth random field, (size, size), mean 0, that varies over ``scale`` pixels."""
    knots = int(np.ceil(size / scale)) + 5
    grid = rng.random((knots, knots)) - 0.5
    at = np.arange(size) / scale + 1.5
    rows = _spline(4.2 * grid, at)
    return _spline(np.ascontiguousarray(rows.T), at).T


def _spline(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Evaluate cubic B-splines along the first axis; plain sums, the same on every machine."""
    # No powers and no matrix products: those are rounded differently from machine to machine.
    whole = np.floor(at).astype(int)
    t = (at - whole)[:, None]
    weights = (
        (1 - t) * (1 - t) * (1 - t) / 6,
        ((3 * t - 6) * t * t + 4) / 6,
        (((-3 * t + 3) * t + 3) * t + 1) / 6,
        t * t * t / 6,
    )
    total = np.zeros((len(at), knots.shape[1]))
    for offset, weight in enumerate(weights):
        part = knots[whole - 1 + offset]
        part *= weight
        total += part
    return total


def _distance(mask: np.ndarray) -> np.ndarray:
    """Return each true pixel's distance from the nearest false one; far, where there is none."""
    if mask.all():
        return np.full(mask.shape, 999.0)
    return np.asarray(ndimage.distance_transform_edt(mask))


def _whole(values: np.ndarray | float) -> np.ndarray:
    """Round to whole sixteenths of a pixel."""
    return np.round(np.asarray(values) * _GRID).astype(np.int32)


def _cells(rng: np.random.Generator, size: int) -> _Cells:
    """Pack cells, and give each pixel to a cell or to a membrane.

    Discs and chains of discs are thrown into the plane, large ones first, where there is room. A
    cell is all that is nearer to the edge of its discs than to that of others, seen through a bent
    plane. Then corners are rounded, which leaves triangles of membrane where three cells meet.
    """
    rows_of, columns_of, radii, owner, turns, long = _packing(rng, size)
    bent_rows = _bend(rng, size) + _whole(np.arange(size))[:, None]
    bent_columns = _bend(rng, size) + _whole(np.arange(size))[None, :]
    nearest = np.full((size, size), 2**30, dtype=np.int32)
    disc = np.zeros((size, size), dtype=np.int32)
    for number, (row, column, radius) in enumerate(zip(rows_of, columns_of, radii, strict=True)):
        reach = int(radius) // _GRID + 95  # the bend, at most 80 pixels, and half a gap
        window = (
            slice(max(0, row // _GRID - reach), max(0, row // _GRID + reach)),
            slice(max(0, column // _GRID - reach), max(0, column // _GRID + reach)),
        )
        down, right = bent_rows[window] - row, bent_columns[window] - column
        # The root of a whole number is rounded alike everywhere, and then down.
        distance = np.sqrt((down * down + right * right).astype(np.float64)).astype(np.int32)
        distance -= radius
        closer = distance < nearest[window]
        nearest[window][closer] = distance[closer]
        disc[window][closer] = number
    cells = owner[disc]

    edge = np.zeros((size, size), dtype=bool)
    edge[:-1] |= cells[:-1] != cells[1:]
    edge[:, :-1] |= cells[:, :-1] != cells[:, 1:]
    border = _distance(~edge)
    steps = _whole(border)
    width = _whole(np.clip(2.6 + 0.5 * _field(rng, size, 36) + _swell(rng, size), 1.6, 7.0))
    corner = _whole(np.clip(7.0 + 3.5 * _field(rng, size, 90), 3.0, 13.0))
    core = steps > width + corner  # opening with a disc rounds the corners
    filled = _whole(_distance(~core)) < corner + _GRID // 2
    inside = filled & (steps > width)
    # Cells too slender to hold the disc keep their middle.
    slender, number = ndimage.label((steps > width) & ~inside)
    areas = np.bincount(slender.ravel(), minlength=number + 1)
    deep = np.bincount(slender[steps > 5 * _GRID], minlength=number + 1) > 0
    keep = (areas > 90) & deep
    keep[0] = False
    inside |= keep[slender]
    instances, number = ndimage.label(inside)
    areas = np.bincount(instances.ravel(), minlength=number + 1)
    names = np.cumsum(areas >= 45) - 1  # the membrane, number 0, stays 0
    names[areas < 45] = 0
    instances = names.astype(np.int32)[instances]
    label = (instances == 0).astype(np.uint8)
    return _Cells(label, instances, turns[disc], long[disc], border)


def _bend(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw how far the plane is shifted, in sixteenths: widely (long cells), and in waves."""
    wide = np.clip(42 * _field(rng, size, 140), -60, 60)
    return _whole(
        wide + 6 * _field(rng, size, 48) + 2.6 * _field(rng, size, 20) + 0.7 * _field(rng, size, 8)
    )


def _swell(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw what membranes gain in width where they are cut obliquely."""
    return np.clip(2.6 * (_field(rng, size, 42) - 1.0), 0, None)


def _packing(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Throw discs: rows, columns and radii in sixteenths of a pixel, owner, direction, length."""
    margin = 80
    across = size + 2 * margin
    trend = _field(rng, across // 4 + 1, 37)  # in steps of four pixels
    crowd = _field(rng, across // 4 + 1, 20)
    count = int(across * across / 512**2 * 120) + 4
    share = (np.arange(count) + 0.5) / count
    largest = min(48.0, 0.2 * size)  # small pictures hold several cells, too
    wanted = np.concatenate([7 + largest * (1 - share) ** 3.4, np.full(count, 8.0)])
    placed: list[tuple[int, int, int]] = []
    owner: list[int] = []
    turns: list[float] = []
    long: list[bool] = []
    taken = np.zeros((0, 3), dtype=np.int64)
    number = 0
    for radius in wanted:
        for _ in range(6):
            row, column, spin, links, bend = rng.random(5)
            at = int(row * across) // 4, int(column * across) // 4
            where, dense = trend[at], crowd[at]
            if radius > 14 and round(dense * 64) > 48:  # leave this place to small cells
                continue
            stretched = radius < 26 and round(where * 64) > 10
            chain = 1 + int(links * (12 if stretched else 4 if radius < 34 else 2.4))
            turn = 0.9 * where + 0.5 * (spin - 0.5) if stretched else np.pi * spin
            size16 = int(_whole(radius * (0.62 if stretched else 1.0)))
            here = np.array([row, column]) * across - margin
            fitting: list[tuple[int, int, int]] = []
            for link in range(chain):
                now = turn + 0.5 * (bend - 0.5) * link
                disc = (int(_whole(here[0])), int(_whole(here[1])), size16)
                if len(taken):
                    gap = (taken[:, 0] - disc[0]) ** 2 + (taken[:, 1] - disc[1]) ** 2
                    if (gap < (taken[:, 2] + size16 + 2 * _GRID) ** 2).any():
                        break
                fitting.append(disc)
                here = here + 1.1 * radius * np.array([np.sin(now), np.cos(now)])
            if not fitting:
                continue
            placed += fitting
            owner += [number] * len(fitting)
            turns += [turn] * len(fitting)
            long += [len(fitting) > 3] * len(fitting)
            taken = np.asarray(placed, dtype=np.int64)
            number += 1
            break
    spots = taken.astype(np.int32)
    return (
        spots[:, 0],
        spots[:, 1],
        spots[:, 2],
        np.array(owner, dtype=np.int32),
        np.array(turns),
        np.array(long),
    )


def _mitochondria(
    rng: np.random.Generator, room: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place mitochondria where a cell has room: mask, depth below the rim, folds inside."""
    size = len(room)
    mask = np.zeros(room.shape, dtype=bool)
    inward = np.full(room.shape, -99.0)
    folds = np.zeros(room.shape)
    for _ in range(size * size // 1100):
        row, column = rng.integers(0, size, 2)
        stretch, turn, large, bend, phase, chance = rng.random(6)
        space = room[row, column]
        if space < 11 or mask[row, column] or chance < 0.5:
            continue
        short = float(_whole(min(space - 2.5, 7 + 24 * large))) / _GRID
        length = short * (1.0 + 1.3 * stretch)
        reach = int(length) + 6
        window = (
            slice(max(0, row - reach), min(size, row + reach)),
            slice(max(0, column - reach), min(size, column + reach)),
        )
        rows, columns = np.mgrid[window]
        cosine, sine = np.cos(np.pi * turn), np.sin(np.pi * turn)
        along = ((columns - column) * cosine + (rows - row) * sine) / length
        across = (-(columns - column) * sine + (rows - row) * cosine) / short
        across = across + 0.7 * (bend - 0.5) * along * along
        # Between an ellipse and a rounded box.
        x, y = along * along, across * across
        depth = (1 - np.sqrt(np.sqrt(x * x + y * y + 1.6 * x * y))) * short
        depth = np.round(depth * _GRID) / _GRID
        inside = depth >= 0
        if (room[window][inside] < 2).any() or mask[window][inside].any():
            continue
        mask[window] |= inside
        inward[window] = np.where(inside, depth, inward[window])
        wave = along * length * 0.75 + 3.0 * np.sin(across * short * 0.13 + 6 * phase)
        folds[window] = np.where(inside, np.sin(wave), folds[window])
    return mask, inward, folds


def _matrix(rng: np.random.Generator, inward: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Gray inside mitochondria: a dark double rim, then folds in a gray matrix."""
    size = len(inward)
    gray = 0.33 + 0.10 * _field(rng, size, 45) + 0.07 * _field(rng, size, 3.6)
    gray += np.where(inward > 4, (0.05 + 0.12 * rng.random()) * np.maximum(folds, -0.4) ** 3, 0.0)
    gray -= np.clip(0.19 + 0.08 * _field(rng, size, 14), 0.05, 0.3) * np.exp(
        -(((inward - 0.8) / 1.3) ** 2)
    )  # outer membrane
    gray += 0.10 * np.exp(-(((inward - 3.0) / 0.9) ** 2))  # the space between
    return gray - 0.10 * np.exp(-(((inward - 5.0) / 1.0) ** 2))  # inner membrane


def _cytoplasm(rng: np.random.Generator, cells: _Cells, haze: np.ndarray) -> np.ndarray:
    """Gray of the cells: each its own, cloudy, darker under flat membranes."""
    size = len(haze)
    own = 0.12 * (rng.random(int(cells.instances.max()) + 1) - 0.5)
    gray = 0.595 + own[cells.instances] + 0.05 * _field(rng, size, 55) - 0.19 * haze
    return gray + 0.05 * _field(rng, size, 8) + 0.055 * _field(rng, size, 3.0)


def _granules(
    rng: np.random.Generator,
    cells: _Cells,
    room: np.ndarray,
    taken: np.ndarray,
    haze: np.ndarray,
) -> np.ndarray:
    """Darkness of vesicles (small rings), grains (dots) and microtubules (streaks, dots)."""
    size = len(room)
    number = size * size // 45
    spots = rng.random((number, 2)) * size
    chance, kind, shade, breadth = rng.random((4, number))
    at = spots.astype(int)
    rows, columns = at.T
    crowd = _field(rng, size, 48)[rows, columns]
    fits = (room[rows, columns] > 4) & ~taken[rows, columns]
    chosen = fits & (chance < 0.50 + 0.60 * crowd)
    dark = np.zeros(room.shape)
    ring = chosen & (kind < 0.55)
    _stamp(dark, spots[ring], 2.4 + 1.4 * breadth[ring], 0.10 + 0.46 * shade[ring], 0.95)
    dot = chosen & (kind > 0.55)
    _stamp(dark, spots[dot], np.zeros(int(dot.sum())), 0.14 + 0.56 * shade[dot] ** 2, 1.2)
    streak = fits & (cells.long | (haze > 0.1))[rows, columns] & (kind > 0.75)
    turn = cells.turn[rows, columns][streak]
    for step in np.arange(-12, 13) * 1.2:
        moved = spots[streak] + step * np.stack([np.sin(turn), np.cos(turn)], axis=1)
        _stamp(dark, moved, np.zeros(len(moved)), 0.10 + 0.06 * shade[streak], 0.9)
    return np.where(taken | (room < 1), 0.0, 0.38 * (1 - np.exp(-dark / 0.38)))


def _stamp(
    canvas: np.ndarray, spots: np.ndarray, radius: np.ndarray, dark: np.ndarray, breadth: float
) -> None:
    """Add to the canvas one ring (a dot where its radius is 0) for each of the spots."""
    size = len(canvas)
    reach = 6 if radius.any() else 3
    step = np.arange(-reach, reach + 1)
    whole = np.floor(spots).astype(int)
    rows = whole[:, 0, None, None] + step[:, None]
    columns = whole[:, 1, None, None] + step[None, :]
    distance = np.hypot(rows - spots[:, 0, None, None], columns - spots[:, 1, None, None])
    value = dark[:, None, None] * np.exp(-(((distance - radius[:, None, None]) / breadth) ** 2))
    rows, columns = np.broadcast_arrays(rows, columns)
    seen = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    canvas += np.bincount(
        rows[seen] * size + columns[seen], value[seen], minlength=size * size
    ).reshape(size, size)


def _membrane_stain(
    rng: np.random.Generator, cells: _Cells, room: np.ndarray, haze: np.ndarray
) -> np.ndarray:
    """Darkness of the membranes: a dark line, gray where they are thick, faint where oblique."""
    size = len(haze)
    strength = np.clip(0.34 + 0.07 * _field(rng, size, 30), 0.10, 0.50)
    strength *= 1 - 0.75 * haze
    smear = np.clip(1.9 + 0.9 * _field(rng, size, 26), 1.5, 4.5)
    line = np.exp(-((np.clip(cells.border - 0.8, 0, None) / smear) ** 2))
    fill = 0.55 / (1 + np.exp(np.clip((room - 0.4) * 2, -30, 30)))
    return strength * np.maximum(line, fill)


def _synapses(rng: np.random.Generator, cells: _Cells) -> np.ndarray:
    """Darkness of synapses: ragged clouds of stain along a stretch of membrane."""
    size = len(cells.label)
    dark = np.zeros(cells.label.shape)
    spots = rng.integers(0, size, (size * size // 900 + 1, 2))
    draws = rng.random((len(spots), 4))
    for (row, column), (wide, deep, heavy, chance) in zip(spots, draws, strict=True):
        if cells.label[row, column] == 0 or chance > 0.22:
            continue
        window = (
            slice(max(0, row - 40), min(size, row + 40)),
            slice(max(0, column - 40), min(size, column + 40)),
        )
        rows, columns = np.mgrid[window]
        away = np.hypot(rows - row, columns - column) / (7 + 16 * wide)
        cloud = np.exp(-(away**2) - (cells.border[window] / (4 + 12 * deep**2)) ** 2)
        dark[window] = np.maximum(dark[window], (0.10 + 0.32 * heavy) * cloud)
    return dark * np.clip(1 + 0.5 * _field(rng, size, 4), 0.2, 1.6)


def _photograph(rng: np.random.Generator, gray: np.ndarray) -> np.ndarray:
    """Blur, uneven light, grain and exposure; then eight bits."""
    size = len(gray)
    sharp = ndimage.gaussian_filter(gray, 0.85)
    grain = ndimage.gaussian_filter(rng.random(gray.shape) - 0.5, 0.75)
    light = 1.0 + 0.11 * _field(rng, size, 150)
    bright, contrast = rng.random(2) - 0.5
    rough = rng.random()
    exposed = (
        (sharp * light + (0.44 + 0.34 * rough) * grain - 0.5) * (1.12 + 0.2 * contrast)
        + 0.5
        + 0.10 * bright
    )
    return (np.clip(np.round(255 * exposed), 0, 255) / 255).astype(np.float32)
