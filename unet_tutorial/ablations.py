"""The paper's ideas taken away one at a time: data, pictures and counts of chapter 5.

`scripts/ablations.py` measures with them, the chapter shows them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_tutorial.datasets import SegmentationData, from_folder, separate, touching_cells
from unet_tutorial.devices import Precision
from unet_tutorial.inference import predict
from unet_tutorial.metrics import ObjectCounts, objects_found
from unet_tutorial.results import mean_and_spread, read_results
from unet_tutorial.unet import UNet

TITLES = {
    "pixel_error": "pixel error",
    "dice": "Dice",
    "v_rand": "V_Rand",
    "v_info": "V_Info",
    "training_loss": "training loss",
    "recovered_share": "recovered",
    "merged_share": "merged",
    "split_share": "split",
    "missed_share": "missed",
    "cell_pixel_error": "pixel error",
    "largest_difference": "largest",
    "changed_at_seams": "near seams",
    "changed_elsewhere": "elsewhere",
    "error_0_16": "0-16 px",
    "error_16_46": "16-46 px",
    "error_46_92": "46-92 px",
    "error_92_on": "farther",
}
FRAMES = (16, 46, 92)  # pixels from the border of the image; 92 is the margin of the paper's tile


def few_images(data: SegmentationData, number: int, seed: int = 0) -> SegmentationData:
    """Keep some of the training images, and all that are held out.

    Images are drawn in turn from the first and from the second half of the training images, since
    the two halves of the ISBI stack differ. What is drawn for fewer images is among what is drawn
    for more, with the same seed.

    Parameters
    ----------
    data : SegmentationData
        All images.
    number : int
        How many to train on.
    seed : int
        Decides which; an odd seed begins in the second half.

    Returns
    -------
    SegmentationData

    Raises
    ------
    ValueError
        If there are not so many.

    Examples
    --------
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=6, size=64)
    membranes: ...
    >>> few = few_images(data, 2)
    >>> len(few.training), len(few.validation)
    (2, 2)
    """
    free = [index for index in range(len(data)) if index not in data.validation_indices]
    if not 1 <= number <= len(free):
        raise ValueError(f"{data.name} has {len(free)} images to train on, asked for {number}")
    rng = np.random.default_rng(seed)
    middle = len(free) // 2
    halves = [rng.permutation(free[:middle]), rng.permutation(free[middle:])]
    order: list[int] = []
    for turn in range(2 * len(free)):
        half, place = halves[(turn + seed) % 2], turn // 2
        if place < len(half):
            order.append(int(half[place]))
    return data.subset(sorted([*order[:number], *data.validation_indices]))


def nuclei(root: str | Path | None = None) -> SegmentationData | None:
    """Read real cells that touch: nuclei of BBBC038, where they are on disk.

    Parameters
    ----------
    root : str or Path, optional
        Folder with ``train`` and ``test``, each with ``image`` and ``label`` (instance numbers);
        by default ``nuclei`` below the folder that ``UNET_TUTORIAL_DATA`` names.

    Returns
    -------
    SegmentationData or None
        Touching nuclei are separated as `unet_tutorial.datasets.separate` does it; ``test`` is
        held out. None if the folder is not there.

    Examples
    --------
    >>> nuclei("no/such/folder") is None
    True
    """
    if root is None:
        root = Path(os.environ.get("UNET_TUTORIAL_DATA") or "data") / "nuclei"
    folder = Path(root)
    if not (folder / "train" / "label").is_dir() or not (folder / "test" / "label").is_dir():
        return None
    known, new = (
        from_folder(
            folder / part / "image",
            folder / part / "label",
            mask_values="instances",
            validation=0,
        )
        for part in ("train", "test")
    )
    cells = tuple(separate(one) for one in (*(known.instances or ()), *(new.instances or ())))
    return SegmentationData(
        name="nuclei",
        description="nuclei in fluorescence, BBBC038; touching ones separated by two pixels",
        images=known.images + new.images,
        labels=tuple((one > 0).astype(np.uint8) for one in cells),
        class_names=("background", "nucleus"),
        validation_indices=tuple(range(len(known), len(known) + len(new))),
        image_names=tuple(f"train {n}" for n in known.image_names)
        + tuple(f"test {n}" for n in new.image_names),
        instances=cells,
        terms="CC0",
        citation="Caicedo et al. 2019, Nature Methods 16",
    )


def cells_that_touch(size: int = 256, n_images: int = 24, seed: int = 0) -> list[SegmentationData]:
    """List the sets on which separating cells is the task: a synthetic one, and `nuclei` if there.

    Parameters
    ----------
    size, n_images, seed : int
        Of the synthetic set.

    Returns
    -------
    list of SegmentationData
    """
    real = nuclei()
    return [touching_cells(seed=seed, n_images=n_images, size=size), *([real] if real else [])]


def count_objects(model: UNet, data: SegmentationData) -> ObjectCounts:
    """Count which objects a network finds and separates, each class decided by the larger share.

    Parameters
    ----------
    model : UNet
        Trained on two classes, 1 inside an object.
    data : SegmentationData
        With ``instances``; all images are used.

    Returns
    -------
    ObjectCounts

    Raises
    ------
    ValueError
        If the data have no ``instances``.

    Examples
    --------
    >>> data = touching_cells(n_images=2, size=64)
    >>> count_objects(UNet(1, 2, base_channels=2, depth=2), data).objects > 4
    True
    """
    if data.instances is None:
        raise ValueError(f"{data.name} has no instances, so its objects cannot be counted")
    claimed = [predict(model, image).argmax(axis=0) for image in data.images]
    return objects_found(claimed, list(data.instances))


def predict_apart(
    model: UNet, image: np.ndarray, tile: int, *, precision: Precision = "auto"
) -> NDArray[np.float32]:
    """Predict an image in tiles that do not overlap, each by itself: how not to do it.

    A padded network meets zeros at the border of every tile, where the image goes on.

    Parameters
    ----------
    model : UNet
        The network.
    image : numpy.ndarray
        (H, W) or (C, H, W).
    tile : int
        Side of the tiles in pixels.
    precision : {"auto", "float32", "bfloat16", "float16"}
        As in `unet_tutorial.inference.predict`.

    Returns
    -------
    numpy.ndarray
        (num_classes, H, W), as `unet_tutorial.inference.predict`, which does it properly.

    Examples
    --------
    >>> model = UNet(1, 2, base_channels=2, depth=2)
    >>> predict_apart(model, np.zeros((40, 64)), 32).shape
    (2, 40, 64)
    """
    pixels = np.asarray(image)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    height, width = pixels.shape[-2:]
    result = np.zeros((model.num_classes, height, width), dtype=np.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            part = (..., slice(top, top + tile), slice(left, left + tile))
            result[part] = predict(model, pixels[part], precision=precision, tile=None)
    return result


def seams(size: tuple[int, int], tile: int, reach: int = 16) -> NDArray[np.bool_]:
    """Mark what lies near the lines at which tiles without overlap meet.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image.
    tile : int
        Side of the tiles in pixels.
    reach : int
        Pixels on either side of a line.

    Returns
    -------
    numpy.ndarray
        (H, W) bool.

    Examples
    --------
    >>> int(seams((8, 8), 4, reach=1)[0].sum())
    2
    """

    def near(length: int) -> NDArray[np.bool_]:
        places = np.arange(length)
        lines = np.arange(tile, length, tile)
        before, after = places[:, None] >= lines - reach, places[:, None] < lines + reach
        return np.asarray((before & after).any(axis=1))

    return near(size[0])[:, None] | near(size[1])[None, :]


def compare_tiles(
    pieces: Sequence[np.ndarray], wholes: Sequence[np.ndarray], tile: int
) -> dict[str, float]:
    """Say how far predictions in tiles are from those of the whole image.

    Parameters
    ----------
    pieces, wholes : sequence of numpy.ndarray
        (num_classes, H, W) probabilities of the same images.
    tile : int
        Side in pixels of the squares whose border is looked at, as in `seams`.

    Returns
    -------
    dict of str to float
        ``largest_difference`` of a probability; ``mean_difference_at_seams`` and
        ``..._elsewhere``; ``changed_at_seams`` and ``..._elsewhere``: the share of the pixels
        whose class is another one.

    Examples
    --------
    >>> whole = np.full((2, 40, 40), 0.5, np.float32)
    >>> compare_tiles([whole], [whole], 20)["largest_difference"]
    0.0
    """
    largest, near, difference, changed = 0.0, [], [], []
    for piece, whole in zip(pieces, wholes, strict=True):
        apart = np.abs(piece - whole).max(axis=0)
        largest = max(largest, float(apart.max()))
        near.append(seams(apart.shape, tile).ravel())
        difference.append(apart.ravel())
        changed.append((piece.argmax(axis=0) != whole.argmax(axis=0)).ravel())
    where = np.concatenate(near)
    found = {"largest_difference": largest}
    for name, values in (
        ("mean_difference", np.concatenate(difference)),
        ("changed", np.concatenate(changed)),
    ):
        found[f"{name}_at_seams"] = float(values[where].mean()) if where.any() else math.nan
        found[f"{name}_elsewhere"] = float(values[~where].mean()) if not where.all() else math.nan
    return found


def error_by_frame(
    predicted: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    frames: Sequence[int] = FRAMES,
) -> dict[str, float]:
    """Give the pixel error in frames of growing distance from the border of the image.

    Parameters
    ----------
    predicted, labels : sequence of numpy.ndarray
        (H, W) class indices.
    frames : sequence of int
        Growing distances in pixels at which a frame ends.

    Returns
    -------
    dict of str to float
        By name, such as ``"error_0_16"``, then ``"error_92_on"``; NaN where no pixel is.

    Examples
    --------
    >>> wrong = np.zeros((8, 8), int)
    >>> wrong[0] = 1
    >>> error_by_frame([wrong], [np.zeros((8, 8), int)], [1])
    {'error_0_1': 0.2857142857142857, 'error_1_on': 0.0}
    """
    limits = [0, *frames, math.inf]
    wrong, pixels = np.zeros(len(limits) - 1), np.zeros(len(limits) - 1)
    for guess, truth in zip(predicted, labels, strict=True):
        height, width = truth.shape
        rows = np.minimum(np.arange(height), np.arange(height)[::-1])
        columns = np.minimum(np.arange(width), np.arange(width)[::-1])
        depth = np.minimum(rows[:, None], columns[None, :])
        bins = np.digitize(depth, limits) - 1
        pixels += np.bincount(bins.ravel(), minlength=len(pixels))
        wrong += np.bincount(bins[guess != truth], minlength=len(wrong))
    names = [
        f"error_{start}_on" if math.isinf(stop) else f"error_{start}_{stop}"
        for start, stop in itertools.pairwise(limits)
    ]
    shares = np.divide(wrong, pixels, out=np.full(len(names), np.nan), where=pixels > 0)
    return dict(zip(names, shares.tolist(), strict=True))


def show_ablation(part: str, *columns: str, results: str = "ablations") -> None:
    """Print the stored rows of one part, mean ± spread over the seeds.

    Parameters
    ----------
    part : str
        ``"elastic"``, ``"weight map"`` or ``"padding"``.
    *columns : str
        Names of `TITLES`.
    results : str
        File in ``book/results``.

    Raises
    ------
    ValueError
        If the file has no such part.

    Examples
    --------
    >>> show_ablation("elastic", "pixel_error")
    isbi2012, 3 seeds ...
    """
    rows = _rows(part, results)
    for data_set in dict.fromkeys(row["dataset"] for row in rows):
        chosen = [row for row in rows if row["dataset"] == data_set]
        seeds = len({row["seed"] for row in chosen})
        print(_line(f"{data_set}, {seeds} seeds", (TITLES[column] for column in columns)))
        found = {name: mean_and_spread(chosen, ["images", "variant"], name) for name in columns}
        several = len({row["images"] for row in chosen}) > 1
        for images, variant in dict.fromkeys((row["images"], row["variant"]) for row in chosen):
            count = f"{images:2d} image{'s' * (images != 1)}, " if several else ""
            cells = [
                f"{mean:.3f} ± {spread:.3f}"
                for mean, spread in (found[name][(images, variant)] for name in columns)
            ]
            print(_line(f"{count}{variant}", cells))


def stored_by_images(
    part: str, column: str, *, results: str = "ablations"
) -> dict[str, dict[int, tuple[float, float]]]:
    """Read mean and spread over the seeds by variant and by the number of training images.

    Parameters
    ----------
    part, column, results : str
        As in `show_ablation`.

    Returns
    -------
    dict
        By variant, by number of training images: mean and spread.

    Examples
    --------
    >>> list(stored_by_images("elastic", "pixel_error"))
    ['not bent', 'bent']
    """
    curves: dict[str, dict[int, tuple[float, float]]] = {}
    found = mean_and_spread(_rows(part, results), ["variant", "images"], column)
    for (variant, images), value in found.items():
        curves.setdefault(variant, {})[images] = value
    return curves


def _rows(part: str, results: str) -> list[dict[str, Any]]:
    rows = [row for row in read_results(results)["rows"] if row["part"] == part]
    if not rows:
        raise ValueError(f"{results} has no part {part!r}")
    return rows


def _line(title: str, cells: Any) -> str:
    return f"{title:<27}" + "".join(f"{cell:>15}" for cell in cells).rstrip()
