"""The data of the book, all in one form: synthetic membranes, ISBI 2012, a folder of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from unet_tutorial import _folder, _isbi2012
from unet_tutorial._folder import FolderError, MaskValues
from unet_tutorial._isbi2012 import CorruptDataError, DataNotFoundError

__all__ = [
    "CorruptDataError",
    "DataNotFoundError",
    "FolderError",
    "SegmentationData",
    "from_folder",
    "load",
    "separate",
    "touching_cells",
]


@dataclass(frozen=True, repr=False, eq=False)
class SegmentationData:
    """Images with a class for every pixel.

    Attributes
    ----------
    name : str
        ``"isbi2012"``, ``"membranes"`` or the name of a folder.
    description : str
        One line for people: what, how many, made by whom.
    images : tuple of ndarray
        Each (C, H, W), float32 in [0, 1]. Sizes may differ between images, C may not.
    labels : tuple of ndarray
        Each (H, W), integer class indices from 0 to ``num_classes - 1``.
    class_names : tuple of str
        By class index; ``("cell", "membrane")`` for both stacks of the book.
    validation_indices : tuple of int
        Images that are held out.
    image_names : tuple of str
        One for each image.
    instances : tuple of ndarray or None
        Each (H, W), int32: a number for every object, 0 between them. None if unknown.
    mitochondria : tuple of ndarray or None
        Each (H, W), bool. Only the synthetic set knows them.
    terms, citation : str
        Under which conditions the data may be used, and what to cite.

    Raises
    ------
    ValueError
        If numbers, shapes or types do not agree.

    Examples
    --------
    >>> data = SegmentationData(
    ...     name="two",
    ...     description="two tiny images",
    ...     images=(np.zeros((1, 2, 3), np.float32), np.ones((1, 4, 4), np.float32)),
    ...     labels=(np.array([[0, 0, 1], [0, 1, 1]]), np.zeros((4, 4), np.uint8)),
    ...     class_names=("cell", "membrane"),
    ...     validation_indices=(1,),
    ...     image_names=("a", "b"),
    ... )
    >>> data
    SegmentationData 'two': 2 images (1 held out), 1 channel, 2×3 to 4×4, classes cell, membrane
    >>> data.validation.image_names, len(data.training)
    (('b',), 1)
    >>> data.training.class_fractions
    (0.5, 0.5)
    """

    name: str
    description: str
    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    class_names: tuple[str, ...]
    validation_indices: tuple[int, ...]
    image_names: tuple[str, ...]
    instances: tuple[np.ndarray, ...] | None = None
    mitochondria: tuple[np.ndarray, ...] | None = None
    terms: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        number = len(self.images)
        for field in ("labels", "image_names", "instances", "mitochondria"):
            values = getattr(self, field)
            if values is not None and len(values) != number:
                raise ValueError(f"{self.name}: {number} images but {len(values)} {field}")
        for index, image in enumerate(self.images):
            who = f"{self.name}, image {self.image_names[index]}"
            if image.ndim != 3 or image.dtype != np.float32:
                raise ValueError(
                    f"{who}: expected (C, H, W) float32, got {image.shape} {image.dtype}"
                )
            if image.shape[0] != self.in_channels:
                raise ValueError(
                    f"{who}: expected {self.in_channels} channels like the first image, "
                    f"got {image.shape[0]}"
                )
            for field in ("labels", "instances", "mitochondria"):
                values = getattr(self, field)
                if values is not None and values[index].shape != image.shape[1:]:
                    raise ValueError(
                        f"{who}: its {field} have shape {values[index].shape}, expected "
                        f"{image.shape[1:]}"
                    )
            if not np.issubdtype(self.labels[index].dtype, np.integer):
                raise ValueError(
                    f"{who}: its labels are {self.labels[index].dtype}, expected integers"
                )
        outside = [i for i in self.validation_indices if not 0 <= i < number]
        if outside or len(set(self.validation_indices)) != len(self.validation_indices):
            raise ValueError(
                f"{self.name}: validation_indices must be different numbers from 0 to "
                f"{number - 1}, got {self.validation_indices}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        channels = f"{self.in_channels} channel{'s' * (self.in_channels != 1)}"
        images = f"{len(self)} image{'s' * (len(self) != 1)}"
        return (
            f"{type(self).__name__} {self.name!r}: {images} ({len(self.validation_indices)} held "
            f"out), {channels}, {_sizes(self)}, "
            f"classes {', '.join(self.class_names)}"
        )

    @property
    def in_channels(self) -> int:
        """Channels of every image: 1 is gray, 3 is color; 0 if there is no image."""
        return self.images[0].shape[0] if self.images else 0

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_fractions(self) -> tuple[float, ...]:
        """Part of all pixels that each class has; the parts add up to 1."""
        counts = np.zeros(self.num_classes, np.int64)
        for labels in self.labels:
            counts += np.bincount(labels.ravel(), minlength=self.num_classes)
        return tuple((counts / max(1, counts.sum())).tolist())

    @property
    def training(self) -> SegmentationData:
        """The images that are not held out."""
        return self.subset(i for i in range(len(self)) if i not in self.validation_indices)

    @property
    def validation(self) -> SegmentationData:
        """The images that are held out."""
        return self.subset(self.validation_indices)

    def subset(self, indices: Iterable[int]) -> SegmentationData:
        """Take some of the images, in the order given; the arrays are shared, not copied.

        Parameters
        ----------
        indices : iterable of int
            Positions from 0 to ``len(self) - 1``.

        Returns
        -------
        SegmentationData
            What is held out here is held out there.

        Raises
        ------
        IndexError
            If a position is not there.
        """
        chosen = list(indices)
        for index in chosen:
            if not 0 <= index < len(self):
                raise IndexError(f"{self.name} has images 0 to {len(self) - 1}, got {index}")
        held_out = set(self.validation_indices)

        def take(values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            return tuple(values[index] for index in chosen)

        return SegmentationData(
            name=self.name,
            description=self.description,
            images=take(self.images),
            labels=take(self.labels),
            class_names=self.class_names,
            validation_indices=tuple(k for k, index in enumerate(chosen) if index in held_out),
            image_names=tuple(self.image_names[index] for index in chosen),
            instances=None if self.instances is None else take(self.instances),
            mitochondria=None if self.mitochondria is None else take(self.mitochondria),
            terms=self.terms,
            citation=self.citation,
        )


def load(
    name: Literal["auto", "isbi2012", "membranes"] = "auto",
    *,
    seed: int = 0,
    n_images: int = 30,
    size: int = 512,
) -> SegmentationData:
    """Load a stack of electron micrographs with membrane labels, and say in one line which.

    Parameters
    ----------
    name : {"auto", "isbi2012", "membranes"}
        ``"isbi2012"``: the 30 slices of the ISBI 2012 challenge, 512×512. Looked for below the
        folder that the environment variable ``UNET_TUTORIAL_DATA`` names, in the ``data/`` of a
        checkout, in the user's cache; else downloaded. Every file is verified by its SHA-256.
        ``"membranes"``: drawn by this package. ``"auto"``: ISBI 2012 if it can be had, else the
        synthetic membranes.
    seed, n_images, size : int
        Of the synthetic set: what decides it, how many images (at least 2), and their height and
        width in pixels (at least 32). Image k is the same for any ``n_images``. ISBI 2012 is
        always taken whole.

    Returns
    -------
    SegmentationData
        Classes 0 cell and 1 membrane; a third is held out: images 10-14 and 25-29 of 30.

    Raises
    ------
    ValueError
        If the name is unknown, or a number is too small.
    DataNotFoundError
        If ISBI 2012 is asked for and cannot be had. A `FileNotFoundError`.
    CorruptDataError
        If a file of ISBI 2012 is not what it should be; the message names it. A `ValueError`.
        With ``"auto"`` it is a line that begins with WARNING, and the search goes on.

    Examples
    --------
    >>> data = load("membranes", n_images=4, size=64)
    membranes: 4 images of 64×64, generated from seed 0
    >>> data.images[0].shape, data.class_names, data.validation_indices
    ((1, 64, 64), ('cell', 'membrane'), (1, 3))
    """
    if name not in ("auto", "isbi2012", "membranes"):
        raise ValueError(f"name must be 'auto', 'isbi2012' or 'membranes', got {name!r}")
    for what, value, least in (("seed", seed, 0), ("n_images", n_images, 2), ("size", size, 32)):
        if value != int(value) or value < least:
            raise ValueError(f"{what} must be a whole number from {least}, got {value!r}")
    reason = ""
    if name != "membranes":
        try:
            return _load_isbi2012(insist=name == "isbi2012")
        except (DataNotFoundError, CorruptDataError) as error:
            if name == "isbi2012":
                raise
            if not isinstance(error, _isbi2012.NoNetworkError):
                print(f"WARNING: {error}")
            reason = "; ISBI 2012 is not on disk and could not be downloaded"
    data = _generate(int(seed), int(n_images), int(size))
    print(f"membranes: {n_images} images of {size}×{size}, generated from seed {seed}{reason}")
    return data


def from_folder(
    images: str | Path,
    masks: str | Path,
    *,
    mask_values: MaskValues = "auto",
    class_names: Sequence[str] | None = None,
    validation: float | Sequence[str] = 0.2,
) -> SegmentationData:
    """Read images and masks of one's own, and say in one line how they were understood.

    Parameters
    ----------
    images, masks : str or Path
        Two folders with PNG, TIFF or JPEG images and PNG or TIFF masks (their subfolders and
        other files are left alone), or two TIFF stacks with a page for a page. A mask has its
        image's name, whatever its format; behind the name it may have ``_mask``, ``_masks``,
        ``_label``, ``_labels``, ``_seg``, ``_segmentation``, ``_gt`` or ``_annotation``, and the
        image ``_image``, ``_img`` or ``_raw``. With such endings both may lie in one folder.
    mask_values : {"auto", "binary", "classes", "instances"}
        What a mask's numbers mean. ``"binary"``: 0 is class 0, all else class 1. ``"classes"``:
        class indices from 0. ``"instances"``: 0 is background, every object has its number; class
        1 where not 0, and the numbers are kept in ``instances``. ``"auto"`` decides where there
        is only one meaning: 0 and 255 (or 65535) are binary, 0 and 1 are classes, more than 256
        values are instances. Anything else is refused.
    class_names : sequence of str, optional
        By class index; at least as many as the masks use. Otherwise ``"background"`` and
        ``"foreground"``, or ``"class 0"``, ``"class 1"``, ... where there are more.
    validation : float or sequence of str
        What is held out: a fraction, rounded to at least one image, taken from the end in natural
        order of the names (neighbors in a series resemble each other, so a block is held out, not
        a sample), or the names of the images. 0 holds out none.

    Returns
    -------
    SegmentationData
        Named like the folder of the images. 8-bit values are divided by 255. 16-bit values are
        divided by 255, 1023, 4095, 16383 or 65535, the smallest that is not below the largest
        value in all 16-bit images. Fractions from 0 to 1 stay. Gray images have one channel,
        color images three; transparency is dropped.

    Raises
    ------
    FolderError
        If anything is missing, unreadable, of the wrong size or ambiguous; its ``problems`` are
        complete. A `ValueError`.
    ValueError
        If an option is not one of those above.

    Examples
    --------
    >>> import tempfile
    >>> from skimage.io import imsave
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("images", "masks"):
    ...         (Path(folder) / part).mkdir()
    ...     for index in range(5):
    ...         disk = (np.hypot(*np.mgrid[-20:20, -20:20]) < 10 + index).astype(np.uint8)
    ...         imsave(f"{folder}/images/{index}.png", 50 + 100 * disk, check_contrast=False)
    ...         imsave(f"{folder}/masks/{index}_mask.png", 255 * disk, check_contrast=False)
    ...     data = from_folder(f"{folder}/images", f"{folder}/masks")
    images: 5 images of 40×40; masks are 0 and 255: class 1 where not 0; held out: 4
    >>> data.class_names, data.validation_indices
    (('background', 'foreground'), (4,))
    """
    read = _folder.read_folder(Path(images), Path(masks), mask_values)
    name = Path(images).resolve().name if Path(images).is_dir() else Path(images).stem
    names = name_classes(class_names, read.num_classes)
    held_out = _choose(validation, read.names, f"{images} and {masks}")
    data = SegmentationData(
        name=name,
        description=f"{len(read.names)} images with masks from the folder {name}; {read.rules[0]}",
        images=read.images,
        labels=read.labels,
        class_names=names,
        validation_indices=held_out,
        image_names=read.names,
        instances=read.instances,
        terms="Yours.",
    )
    number = f"{len(data)} image{'s' * (len(data) != 1)} of {_sizes(data)}"
    chosen = [read.names[index] for index in held_out]
    shown = ", ".join(chosen) if len(chosen) <= 3 else f"{chosen[0]}, …, {chosen[-1]}"
    if len(chosen) > 3:
        shown += f" ({len(chosen)})"
    print(f"{name}: {number}; {'; '.join(read.rules)}; held out: {shown or 'none'}")
    return data


def touching_cells(
    *, seed: int = 0, n_images: int = 24, size: int = 256, gap: int = 2
) -> SegmentationData:
    """Draw bright cells that touch, with the numbers that tell them apart.

    What the border weight map was made for: classes 0 background and 1 cell, and between touching
    cells nothing but the narrow background that `separate` puts there.

    Parameters
    ----------
    seed, n_images, size : int
        As in `load`. At least 2 images of at least 32 pixels.
    gap : int
        Pixels of background between touching cells, as in `separate`.

    Returns
    -------
    SegmentationData
        With ``instances``; a third is held out.

    Raises
    ------
    ValueError
        If a number is too small.

    Examples
    --------
    >>> data = touching_cells(n_images=3, size=64)
    >>> data.class_names, data.validation_indices
    (('background', 'cell'), (2,))
    >>> bool(((data.instances[0] > 0) == (data.labels[0] == 1)).all())
    True
    """
    from unet_tutorial._cells import generate

    if seed < 0 or n_images < 2 or size < 32:
        raise ValueError(
            "expected a seed from 0, 2 images or more and 32 pixels or more, got "
            f"seed={seed}, n_images={n_images}, size={size}"
        )
    drawn = [generate(index, seed=seed, size=size) for index in range(n_images)]
    cells = tuple(separate(instances, gap) for _, instances in drawn)
    return SegmentationData(
        name="touching-cells",
        description=f"{n_images} images of touching cells, drawn from seed {seed} by this package",
        images=tuple(image[None] for image, _ in drawn),
        labels=tuple((one > 0).astype(np.uint8) for one in cells),
        class_names=("background", "cell"),
        validation_indices=_held_out(n_images),
        image_names=tuple(f"image {index}" for index in range(n_images)),
        instances=cells,
        terms="Generated; CC0, use it as you like.",
        citation="None needed.",
    )


def separate(instances: np.ndarray, gap: int = 2) -> np.ndarray:
    """Put background between objects that touch, so that two classes can tell them apart.

    The paper (section 3) introduces "small separation borders between touching cells" and does not
    say how. Here each pixel goes that has another object near it: one pixel on either side of the
    line for a gap of 2, two for a gap of 4.

    Parameters
    ----------
    instances : numpy.ndarray
        (H, W) whole numbers: 0 is background, and each object has a number of its own.
    gap : int
        Pixels between two objects that touched; even, 0 leaves all as it is.

    Returns
    -------
    numpy.ndarray
        (H, W), the same numbers, 0 in the gaps.

    Raises
    ------
    ValueError
        If the gap is odd or negative.

    Examples
    --------
    >>> separate(np.array([[1, 1, 1, 2, 2, 0, 0]]))
    array([[1, 1, 0, 0, 2, 0, 0]])
    """
    if gap < 0 or gap % 2:
        raise ValueError(
            f"the gap takes as much of one object as of the other: even, 0 or more; got {gap}"
        )
    cells = np.asarray(instances)
    window = gap + 1
    largest = ndimage.maximum_filter(cells, window, mode="nearest")
    beyond = np.where(cells > 0, cells.astype(np.int64), int(cells.max(initial=0)) + 1)
    smallest = ndimage.minimum_filter(beyond, window, mode="nearest")
    return np.where((largest == cells) & (smallest == cells), cells, 0).astype(cells.dtype)


def name_classes(class_names: Sequence[str] | None, used: int) -> tuple[str, ...]:
    """Check the names that were given, or give names.

    Examples
    --------
    >>> name_classes(None, 2)
    ('background', 'foreground')
    """
    if class_names is not None:
        if isinstance(class_names, str) or len(class_names) < used:
            raise ValueError(
                f"class_names must name {used} classes, the background first; the masks use "
                f"{used}, given: {class_names!r}"
            )
        return tuple(class_names)
    if used == 2:
        return ("background", "foreground")
    return tuple(f"class {index}" for index in range(used))


def how_many_to_hold_out(fraction: float, number: int, where: str) -> int:
    """Turn a fraction of images into how many, at least one unless it is 0.

    Examples
    --------
    >>> how_many_to_hold_out(0.2, 3, "here"), how_many_to_hold_out(0, 3, "here")
    (1, 0)
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"validation must be a fraction from 0 to below 1, got {fraction}")
    held_out = max(1, round(fraction * number)) if fraction else 0
    if held_out >= number:
        raise FolderError(
            where,
            [
                f"of {number} image{'s' * (number != 1)}, holding out {held_out} leaves none to "
                "train on: add images, or hold out less (validation=0 for none)"
            ],
        )
    return held_out


def _choose(
    validation: float | Sequence[str], names: tuple[str, ...], where: str
) -> tuple[int, ...]:
    """Turn ``validation`` of `from_folder` into indices."""
    if isinstance(validation, int | float):
        number = how_many_to_hold_out(validation, len(names), where)
        return tuple(range(len(names) - number, len(names)))
    wanted = [validation] if isinstance(validation, str) else list(validation)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise FolderError(
            where,
            [f"validation names {name!r}, which is no image's name" for name in unknown],
        )
    return tuple(index for index, name in enumerate(names) if name in wanted)


def _load_isbi2012(*, insist: bool) -> SegmentationData:
    stack = _isbi2012.read_stack(insist=insist)
    number = len(stack.images)
    height, width = stack.images[0].shape
    print(f"isbi2012: {number} images of {height}×{width}, {stack.said}")
    return SegmentationData(
        name="isbi2012",
        description=(
            f"ISBI 2012: {number} slices of the ventral nerve cord of a first instar Drosophila "
            "larva, serial-section transmission electron microscopy, 4×4×50 nm; Cardona et al."
        ),
        images=tuple(image[None].astype(np.float32) / np.float32(255) for image in stack.images),
        labels=tuple((label == 0).astype(np.uint8) for label in stack.labels),
        class_names=("cell", "membrane"),
        validation_indices=_held_out(number),
        image_names=tuple(f"slice {index}" for index in range(number)),
        terms=_isbi2012.TERMS,
        citation=_isbi2012.CITATION,
    )


def _generate(seed: int, n_images: int, size: int) -> SegmentationData:
    from unet_tutorial._membranes import generate

    drawn = [generate(index, seed=seed, size=size) for index in range(n_images)]
    return SegmentationData(
        name="membranes",
        description=(
            f"Synthetic membranes: {n_images} images drawn from seed {seed} by this package in the "
            "likeness of serial-section electron micrographs"
        ),
        images=tuple(one.image[None] for one in drawn),
        labels=tuple(one.label for one in drawn),
        class_names=("cell", "membrane"),
        validation_indices=_held_out(n_images),
        image_names=tuple(f"image {index}" for index in range(n_images)),
        instances=tuple(one.instances for one in drawn),
        mitochondria=tuple(one.mitochondria for one in drawn),
        terms="Generated; CC0, use it as you like.",
        citation="None needed.",
    )


def _held_out(number: int) -> tuple[int, ...]:
    """Hold out a block of each half, a third in all: 10-14 and 25-29 of 30."""
    if number < 4:
        return (number - 1,)
    return (
        *range(number // 3, number // 2),
        *range(5 * number // 6, number),
    )


def _sizes(data: SegmentationData) -> str:
    sizes = sorted({image.shape[1:] for image in data.images})
    return " to ".join(f"{h}×{w}" for h, w in sizes[:1] + sizes[1:][-1:]) or "no size"
