"""A stranger's images for training: where they lie, what their masks mean, both sets in one scale.

`unet_tutorial._folder` reads one pair of folders and refuses what can mean more than one thing.
Here two pairs (training and validation) are read as one set, and more is decided, aloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from skimage.measure import label

from unet_tutorial import _folder
from unet_tutorial._folder import FolderError, MaskValues
from unet_tutorial.datasets import SegmentationData, how_many_to_hold_out, name_classes

TRAINING_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation", "dev")
IMAGE_NAMES = ("images", "image", "imgs", "img", "raw")
MASK_NAMES = ("masks", "mask", "labels", "label", "annotations", "annotation", "seg", "gt")
# Fewer numbers than this may be classes with one area each: liver, kidney, spleen.
MANY_OBJECTS = 10
MAX_GUESSED_CLASSES = 20


@dataclass(frozen=True)
class Folders:
    """Where the images of a training lie.

    Attributes
    ----------
    images, masks : Path
        Two folders (or one, where the names of masks end in ``_mask``) or two TIFF stacks.
    validation : Folders or float
        Others of the same kind, or the fraction of these files to hold out.
    """

    images: Path
    masks: Path
    validation: Folders | float = 0.2


def find_folders(root: Path) -> Folders:
    """Find images and masks below a folder by the usual names.

    ``train/`` and ``val/`` (or ``validation/``, …), each with ``images/`` and ``masks/`` (or
    ``image/`` and ``label/``, …); or only the latter two.

    Raises
    ------
    FolderError
        If they are not there; says what was looked for.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("train/image", "train/label", "val/image", "val/label"):
    ...         (Path(folder) / part).mkdir(parents=True)
    ...     found = find_folders(Path(folder))
    >>> found.masks.parts[-2:], found.validation.images.parts[-2:]
    (('train', 'label'), ('val', 'image'))
    """
    if not root.is_dir():
        raise FolderError(str(root), [f"{root}: no such folder"])
    training = _subfolder(root, TRAINING_NAMES)
    found = _images_and_masks(training or root)
    validation = _subfolder(root, VALIDATION_NAMES)
    return Folders(*found, beside(validation, *found)) if validation else Folders(*found)


def beside(folder: Path, images: Path, masks: Path) -> Folders:
    """Find a second pair that is named like the first: ``val/image`` like ``train/image``."""
    if images.resolve() == masks.resolve() and not (folder / images.name).is_dir():
        return Folders(folder, folder, 0.0)
    pair = folder / images.name, folder / masks.name
    if all(path.exists() for path in pair):
        return Folders(*pair, 0.0)
    return Folders(*_images_and_masks(folder, like=(images.name, masks.name)), 0.0)


def _images_and_masks(folder: Path, like: tuple[str, str] | None = None) -> tuple[Path, Path]:
    images, masks = _subfolder(folder, IMAGE_NAMES), _subfolder(folder, MASK_NAMES)
    if images is None or masks is None:
        wanted = f"{like[0]}/ and {like[1]}/ as beside it, or " if like else ""
        raise FolderError(
            str(folder),
            [
                f"{folder}: no subfolders for images and masks; looked for {wanted}one of "
                f"{', '.join(IMAGE_NAMES)} and one of {', '.join(MASK_NAMES)}. Name both folders "
                "yourself"
            ],
        )
    return images, masks


def _subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    if not folder.is_dir():
        return None
    known = {path.name.casefold(): path for path in folder.iterdir() if path.is_dir()}
    return next((known[name] for name in names if name in known), None)


class Own(NamedTuple):
    """What `read_own` returns."""

    data: SegmentationData
    full_scale: int  # what 16-bit images were divided by; 0 if there is none
    even: bool  # whether every image was brought to its own brightness, see `even_out`
    mask_values: MaskValues  # as it was decided
    rules: tuple[str, ...]  # what was decided, for people


def read_own(
    folders: Folders,
    *,
    mask_values: MaskValues = "auto",
    class_names: Sequence[str] | None = None,
    even: bool = False,
) -> Own:
    """Read training and validation images as one data set.

    Both are scaled by one factor and understood by one rule. Unlike `datasets.from_folder`, masks
    that hold two values, or numbers that are plainly those of objects or plainly those of classes,
    need no ``mask_values``. With ``even`` each image is divided by its own brightness (`even_out`).

    Raises
    ------
    FolderError
        With all that is wrong in both.
    """
    if mask_values not in get_args(MaskValues):
        expected = ", ".join(repr(value) for value in get_args(MaskValues))
        raise ValueError(f"mask_values must be one of {expected}, got {mask_values!r}")
    problems: list[str] = []
    pairs = _folder.read_pairs(folders.images, folders.masks, problems)
    first = len(pairs)
    second = folders.validation if isinstance(folders.validation, Folders) else None
    where = f"{folders.images} and {folders.masks}"
    if second is not None:
        theirs: list[str] = []
        pairs = pairs + _folder.read_pairs(second.images, second.masks, theirs)
        problems += [f"validation: {problem}" for problem in theirs]
        where += f", {second.images} and {second.masks}"
    problems += _folder._check_agreement(pairs)
    scaled, full_scale = _folder._scale(pairs, problems)
    scale_rules = _folder.scale_rules(full_scale)
    if even:
        scaled = tuple(map(even_out, scaled))
        scale_rules = (*scale_rules, "each image divided by its own brightness")
    meaning = decide([pair.mask for pair in pairs]) if mask_values == "auto" else mask_values
    labels, instances, used, rule = _folder._interpret(pairs, meaning, problems)
    if problems:
        raise FolderError(where, problems)
    names = tuple(
        pair.name if index < first else f"validation/{pair.name}"
        for index, pair in enumerate(pairs)
    )
    data = SegmentationData(
        name=folders.images.resolve().stem,
        description=f"{len(pairs)} images with masks; {rule}",
        images=scaled,
        labels=labels,
        class_names=name_classes(class_names, used),
        validation_indices=_held_out(folders, names, first, where),
        image_names=names,
        instances=instances,
        terms="Yours.",
    )
    return Own(data, full_scale, even, meaning, (rule, *scale_rules))


def brightness_of(image: np.ndarray) -> float:
    """Tell how bright an image is: the value that 1 of 1000 is above; more than 0."""
    return max(float(np.quantile(image, 0.999)), 1e-4)


def even_out(image: np.ndarray) -> np.ndarray:
    """Divide an image by its brightness, so that exposure and stain count no longer.

    Examples
    --------
    >>> even_out(np.full((1, 8, 8), 0.25, np.float32)).max().item()
    1.0
    """
    return (image / brightness_of(image)).astype(np.float32)


def decide(masks: Sequence[np.ndarray]) -> MaskValues:
    """Decide what the numbers of masks mean, where a look at all of them leaves no doubt.

    Examples
    --------
    >>> decide([np.array([[0, 128]])])
    'binary'
    >>> decide([np.arange(25).reshape(5, 5)])  # 24 objects of one piece
    'instances'
    >>> decide([np.array([[0, 1, 0, 2, 0, 1, 0, 2]])])  # one number in many pieces
    'classes'
    >>> decide([np.array([[0, 1, 0, 2]])])  # either
    'auto'
    """
    if not masks:
        return "auto"
    values = np.unique(np.concatenate([np.unique(mask) for mask in masks])).tolist()
    known = _folder._guess(values)
    if known != "auto" or values[0] != 0:
        return known
    if len(values) == 2:
        return "binary"  # as instances it would be the same: class 1 where not 0
    numbers = sum(int(np.count_nonzero(np.unique(mask))) for mask in masks)
    pieces = sum(int(label(mask, background=0, connectivity=2).max()) for mask in masks)
    if pieces <= 1.1 * numbers and values[-1] >= MANY_OBJECTS:
        return "instances"
    consecutive = values == list(range(len(values)))
    if consecutive and len(values) <= MAX_GUESSED_CLASSES and pieces > 1.5 * numbers:
        return "classes"
    return "auto"


def _held_out(folders: Folders, names: tuple[str, ...], first: int, where: str) -> tuple[int, ...]:
    if isinstance(folders.validation, Folders):
        return tuple(range(first, len(names)))
    number = how_many_to_hold_out(folders.validation, first, where)
    return tuple(range(first - number, first))


def read_image(file: Path, *, channels: int, full_scale: int = 0, even: bool = False) -> np.ndarray:
    """Read an image for a trained network, scaled as those that it was trained on.

    Parameters
    ----------
    file : Path
        PNG, TIFF (a stack as well) or JPEG.
    channels : int
        Of the network. A gray image becomes a color image of three equal channels where that is
        asked, a color image without color becomes gray.
    full_scale : int
        What 16-bit images are divided by; 0 if the network has seen none.
    even : bool
        Whether every image is brought to its own brightness.

    Returns
    -------
    ndarray
        (pages, channels, H, W) float32.

    Raises
    ------
    ValueError
        If it cannot be read or is of another kind than what the network knows.
    """
    pages = _scaled_pages(file, channels, full_scale)
    return np.stack([even_out(page) for page in pages]) if even else pages


def _scaled_pages(file: Path, channels: int, full_scale: int) -> np.ndarray:
    if not file.is_file():
        raise ValueError("no such file")
    if file.suffix.lower() not in _folder.READABLE:
        raise ValueError(f"expected one of {', '.join(_folder.READABLE)}")
    problems: list[str] = []
    pages = _folder._read(file, problems, mask=False)
    if pages is None:
        raise ValueError(problems[0].removeprefix(f"{file.name}: "))
    if channels == 3 and pages.shape[1] == 1:
        pages = np.repeat(pages, 3, axis=1)
    elif channels == 1 and pages.shape[1] > 1 and (pages == pages[:, :1]).all():
        pages = pages[:, :1]
    if pages.shape[1] != channels:
        raise ValueError(
            f"{pages.shape[1]} channels, the network was trained on images with {channels}"
        )
    if _folder.is_long(pages) and not full_scale:
        raise ValueError(
            f"{pages.dtype} values, the network was trained on 8-bit images: convert it as "
            "you converted those"
        )
    scaled = _folder.scale(pages, full_scale)
    if scaled is None:
        raise ValueError(
            f"{pages.dtype} values from {pages.min()} to {pages.max()}; expected 8 or 16 bits, or "
            "fractions from 0 to 1"
        )
    return scaled
