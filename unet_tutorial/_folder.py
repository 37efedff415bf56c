"""Images and masks of one's own, read from two folders or two TIFF stacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import tifffile
from PIL import Image, ImageOps
from skimage.measure import label

MaskValues = Literal["auto", "binary", "classes", "instances"]

TIFF = (".tif", ".tiff")
JPEG = (".jpg", ".jpeg")
READABLE = (".png", *TIFF, *JPEG)
# What people put behind the name that image and mask share.
MASK_SUFFIXES = ("mask", "masks", "label", "labels", "seg", "segmentation", "gt", "annotation")
IMAGE_SUFFIXES = ("image", "img", "raw")
MAX_CLASSES = 256


class FolderError(ValueError):
    """A folder of images and masks cannot be used as it is.

    Attributes
    ----------
    problems : list of str
        All of them, each with the file and what to do about it.

    Examples
    --------
    >>> print(FolderError("my/images", ["a.png: no mask"]))
    my/images: 1 problem
      - a.png: no mask
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        number = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        super().__init__("\n  - ".join([f"{where}: {number}", *problems]))


class Folder(NamedTuple):
    """What was read; the fields are those of `unet_tutorial.datasets.SegmentationData`."""

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]  # (C, H, W) float32 in [0, 1]
    labels: tuple[np.ndarray, ...]  # (H, W) uint8
    instances: tuple[np.ndarray, ...] | None  # (H, W) int32
    num_classes: int
    rules: tuple[str, ...]  # what was decided, for people


class _Pair(NamedTuple):
    name: str
    image_file: str
    mask_file: str
    image: np.ndarray  # (C, H, W), as stored
    mask: np.ndarray  # (H, W) integer, as stored


def read_folder(images: Path, masks: Path, mask_values: MaskValues) -> Folder:
    """Read images and masks, or raise one `FolderError` that lists all that is wrong."""
    if mask_values not in get_args(MaskValues):
        expected = ", ".join(repr(value) for value in get_args(MaskValues))
        raise ValueError(f"mask_values must be one of {expected}, got {mask_values!r}")
    problems: list[str] = []
    pairs = read_pairs(images, masks, problems)
    problems += _check_agreement(pairs)
    scaled, full_scale = _scale(pairs, problems)
    labels, instances, num_classes, rule = _interpret(pairs, mask_values, problems)
    if problems:
        raise FolderError(f"{images} and {masks}", problems)
    names = tuple(pair.name for pair in pairs)
    return Folder(names, scaled, labels, instances, num_classes, (rule, *scale_rules(full_scale)))


def read_pairs(images: Path, masks: Path, problems: list[str]) -> list[_Pair]:
    """Read images and masks as they are stored; `problems` takes what is wrong."""
    if images.is_dir() and masks.is_dir():
        return _read_pairs(_match(images, masks, problems), problems)
    if images.is_file() and masks.is_file():
        return _read_stacks(images, masks, problems)
    missing = [path for path in (images, masks) if not path.exists()]
    problems += [f"{path}: no such folder or file" for path in missing]
    if not missing:
        problems.append("one is a folder and the other a file: give two of the same kind")
    return []


# --- files --------------------------------------------------------------------------------------


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``image2`` before ``image10``.

    Examples
    --------
    >>> sorted(["image10", "image2"], key=natural_order)
    ['image2', 'image10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def _without_suffix(stem: str, suffixes: Sequence[str]) -> str:
    ending = re.search(rf"[_\-. ]({'|'.join(suffixes)})$", stem, re.IGNORECASE)
    return stem[: ending.start()] if ending and ending.start() else stem


def _match(
    image_folder: Path, mask_folder: Path, problems: list[str]
) -> list[tuple[str, Path, Path]]:
    """Pair the files by name; `problems` takes those that stay alone or come twice."""
    image_files = _list(image_folder)
    mask_files = _list(mask_folder)
    one_folder = image_folder.resolve() == mask_folder.resolve()
    if one_folder:
        mask_files = [f for f in mask_files if _without_suffix(f.stem, MASK_SUFFIXES) != f.stem]
        image_files = [f for f in image_files if f not in mask_files]
    ends = ", of those whose names end in _mask, _label, …" if one_folder else ""
    for folder, files, what in (
        (image_folder, image_files, "image"),
        (mask_folder, mask_files, "mask" + ends),
    ):
        if not files:
            problems.append(f"{folder}: no {what}; {', '.join(READABLE)} are read")
    if not image_files or not mask_files:
        return []
    image_stems = {file.stem for file in image_files}
    masks: dict[str, Path] = {}
    for file in mask_files:
        if file.suffix.lower() in JPEG:
            problems.append(
                f"{file.name}: a JPEG cannot be a mask, its compression changes the values: save "
                "masks as PNG or TIFF"
            )
        same = file.stem in image_stems
        _enter(masks, file, () if same else MASK_SUFFIXES, "mask", problems)
    images: dict[str, Path] = {}
    for file in image_files:
        same = file.stem in masks
        _enter(images, file, () if same else IMAGE_SUFFIXES, "image", problems)
    for key in sorted(images.keys() - masks.keys(), key=natural_order):
        problems.append(f"{images[key].name}: no mask of that name ({key}.png, {key}_mask.tif, …)")
    for key in sorted(masks.keys() - images.keys(), key=natural_order):
        problems.append(f"{masks[key].name}: no image of that name ({key}.png, {key}.tif, …)")
    both = sorted(images.keys() & masks.keys(), key=natural_order)
    return [(key, images[key], masks[key]) for key in both if masks[key].suffix.lower() not in JPEG]


def _list(folder: Path) -> list[Path]:
    files = (
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in READABLE and not file.name.startswith(".")
    )
    return sorted(files, key=lambda file: natural_order(file.name))


def _enter(
    known: dict[str, Path], file: Path, suffixes: Sequence[str], what: str, problems: list[str]
) -> None:
    key = _without_suffix(file.stem, suffixes) if suffixes else file.stem
    if key in known:
        problems.append(f"{file.name}: a second {what} for {key}, beside {known[key].name}")
    else:
        known[key] = file


def _read_pairs(files: list[tuple[str, Path, Path]], problems: list[str]) -> list[_Pair]:
    pairs = []
    for name, image_file, mask_file in files:
        image = _read(image_file, problems, mask=False)
        mask = _read(mask_file, problems, mask=True)
        if image is None or mask is None:
            continue
        if len(image) > 1 or len(mask) > 1:
            for file, pages in ((image_file, image), (mask_file, mask)):
                if len(pages) > 1:
                    problems.append(
                        f"{file.name}: a stack of {len(pages)} pages; give one stack as images "
                        "and one as masks, or save its pages as files"
                    )
            continue
        flat = _one_channel(mask[0], mask_file.name, problems)
        if flat is not None:
            pairs.append(_Pair(name, image_file.name, mask_file.name, image[0], flat))
    return pairs


def _read_stacks(image_file: Path, mask_file: Path, problems: list[str]) -> list[_Pair]:
    for file, allowed in ((image_file, READABLE), (mask_file, (".png", *TIFF))):
        if file.suffix.lower() not in allowed:
            problems.append(f"{file.name}: expected one of {', '.join(allowed)}")
    if problems:
        return []
    image = _read(image_file, problems, mask=False)
    mask = _read(mask_file, problems, mask=True)
    if image is None or mask is None:
        return []
    if len(image) != len(mask):
        problems.append(
            f"{image_file.name} has {len(image)} pages, {mask_file.name} has {len(mask)}: "
            "every page needs its mask"
        )
        return []
    pairs = []
    for page, (one, its_mask) in enumerate(zip(image, mask, strict=True)):
        files = [f"{file.name} page {page}" for file in (image_file, mask_file)]
        flat = _one_channel(its_mask, files[1], problems)
        if flat is not None:
            pairs.append(_Pair(f"page {page}", files[0], files[1], one, flat))
    return pairs


def _read(file: Path, problems: list[str], *, mask: bool) -> np.ndarray | None:
    """Read a file as (pages, C, H, W), values as stored; None if it is of no use."""
    try:
        if not file.stat().st_size:
            raise ValueError("the file is empty")
        pages = _read_tiff(file) if file.suffix.lower() in TIFF else _read_other(file, mask=mask)
        if not pages.size:
            raise ValueError(f"it has no pixels, its shape is {pages.shape}")
    except Exception as error:  # whatever a broken file makes its reader raise
        problems.append(f"{file.name}: cannot be read: {error or type(error).__name__}")
        return None
    return pages


def _read_tiff(file: Path) -> np.ndarray:
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        axes, pixels = series.axes, series.asarray()
        rgb = tiff.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
    long = [index for index, length in enumerate(pixels.shape) if length > 1]
    keep = [index for index, axis in enumerate(axes) if axis in "YX" or index in long]
    axes = "".join(axes[index] for index in keep)
    pixels = pixels.reshape([pixels.shape[index] for index in keep])
    channels = [axis for axis in axes if axis in "SC"]
    others = [axis for axis in axes if axis not in "SCYX"]
    if len(channels) > 1 or len(others) > 1 or "Y" not in axes or "X" not in axes:
        raise ValueError(
            f"its axes are {axes} {pixels.shape}, expected height, width, at most one axis of "
            "colors and at most one of pages"
        )
    order = [*others, *channels, "Y", "X"]
    pixels = pixels.transpose([axes.index(axis) for axis in order])
    if not channels:
        pixels = np.expand_dims(pixels, -3)
    if not others:
        pixels = pixels[None]
    return _drop_alpha(pixels) if rgb else pixels


def _read_other(file: Path, *, mask: bool) -> np.ndarray:
    with Image.open(file) as picture:
        stored = str(picture.tile[0][3]) if picture.tile else ""  # such as "RGB;16B"
        if ";16" in stored and not picture.mode.startswith("I"):
            # Pillow would keep the upper 8 bits and say nothing: 12-bit colors turn black.
            raise ValueError("16 bits a color, which only TIFF files are read with: save it as one")
        picture.load()
        if mask and picture.mode == "P":
            pixels = np.asarray(picture)  # the numbers, not the colors they are painted in
        else:
            turned = ImageOps.exif_transpose(picture)
            if turned.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
                turned = turned.convert("RGB")
            pixels = np.asarray(turned)
            if picture.mode == "P" and (pixels == pixels[..., :1]).all():
                pixels = pixels[..., 0]  # a palette of grays
    if pixels.ndim == 2:
        return pixels[None, None]
    return _drop_alpha(pixels.transpose(2, 0, 1)[None])


def _drop_alpha(pixels: np.ndarray) -> np.ndarray:
    """Leave 1 of 2 and 3 of 4 channels of (pages, C, H, W)."""
    return pixels[:, :-1] if pixels.shape[1] in (2, 4) else pixels


def _one_channel(mask: np.ndarray, file: str, problems: list[str]) -> np.ndarray | None:
    """Make (C, H, W) an integer (H, W), or say why not."""
    if len(mask) > 1 and (mask != mask[:1]).any():
        problems.append(
            f"{file}: a mask in color; expected one number a pixel (0 and 255, class indices or "
            "instance numbers): turn every color into its number first"
        )
        return None
    flat = mask[0]
    if flat.dtype == bool:
        return flat.astype(np.uint8)
    if np.issubdtype(flat.dtype, np.floating):
        if not np.isfinite(flat).all() or (flat != np.round(flat)).any():
            problems.append(f"{file}: a mask with fractions; expected whole numbers")
            return None
        flat = flat.astype(np.int64)
    if flat.min() < 0 or flat.max() > np.iinfo(np.int32).max:
        problems.append(
            f"{file}: values from {flat.min()} to {flat.max()}; expected 0 to "
            f"{np.iinfo(np.int32).max}"
        )
        return None
    return flat


# --- what the numbers mean ----------------------------------------------------------------------


def _check_agreement(pairs: list[_Pair]) -> list[str]:
    problems = []
    for pair in pairs:
        if pair.image.shape[1:] != pair.mask.shape:
            image, mask = (
                f"{height}×{width}" for height, width in (pair.image.shape[1:], pair.mask.shape)
            )
            problems.append(
                f"{pair.mask_file}: {mask} pixels, its image {pair.image_file} has {image}"
            )
    counts = Counter(pair.image.shape[0] for pair in pairs)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        problems += [
            f"{pair.image_file}: {pair.image.shape[0]} channels, most images have {usual}: make "
            "all of them gray or all of them color"
            for pair in pairs
            if pair.image.shape[0] != usual
        ]
    return problems


def _scale(pairs: list[_Pair], problems: list[str]) -> tuple[tuple[np.ndarray, ...], int]:
    """Bring images to [0, 1], and return what 16-bit ones were divided by: 0 if there is none."""
    long = [pair.image for pair in pairs if is_long(pair.image)]
    largest = max((int(image.max()) for image in long), default=0)
    full = next((2**bits - 1 for bits in (8, 10, 12, 14) if largest < 2**bits), 2**16 - 1)
    scaled = []
    for pair in pairs:
        image = scale(pair.image, full)
        if image is None:
            problems.append(
                f"{pair.image_file}: {pair.image.dtype} values from {pair.image.min()} to "
                f"{pair.image.max()}; expected 8 or 16 bits, or fractions from 0 to 1: rescale it"
            )
        else:
            scaled.append(image)
    return tuple(scaled), full if long else 0


def scale(image: np.ndarray, full_scale: int) -> np.ndarray | None:
    """Bring an image to [0, 1], one of 16 bits by a factor that all share; None if it cannot be.

    Examples
    --------
    >>> scale(np.array([0, 4095], np.uint16), full_scale=4095)
    array([0., 1.], dtype=float32)
    """
    if image.dtype == bool:
        return image.astype(np.float32)
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    if is_long(image) and image.min() >= 0 and image.max() < 2**16:
        return image.astype(np.float32) / np.float32(full_scale)
    if np.issubdtype(image.dtype, np.floating) and image.min() >= 0 and image.max() <= 1:
        return image.astype(np.float32)
    return None


def scale_rules(full_scale: int) -> tuple[str, ...]:
    """Say what `_scale` did, where it is more than 8 bits to fractions."""
    return (f"16-bit images divided by {full_scale}",) if full_scale else ()


def is_long(image: np.ndarray) -> bool:
    return bool(np.issubdtype(image.dtype, np.integer)) and image.dtype != np.uint8


def _interpret(
    pairs: list[_Pair], mask_values: MaskValues, problems: list[str]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None, int, str]:
    """Turn mask values into class indices, by the rule that is asked for or the only one."""
    nothing: tuple[tuple[np.ndarray, ...], None, int, str] = ((), None, 0, "")
    if not pairs:
        return nothing
    values = np.unique(np.concatenate([np.unique(pair.mask) for pair in pairs])).tolist()
    if values == [0]:
        problems.append("the masks are empty: all of them are 0 everywhere")
        return nothing
    meaning = _guess(values) if mask_values == "auto" else mask_values
    if meaning == "auto":
        problems.append(_ambiguous(pairs, values))
        return nothing
    if meaning == "classes":
        return _as_classes(pairs, values, problems) or nothing
    if 0 not in values:
        problems.append(
            f"no pixel of the masks is 0, the background; they have {_show(values)}. If these are "
            "classes, renumber them from 0"
        )
        return nothing
    labels = tuple((pair.mask > 0).astype(np.uint8) for pair in pairs)
    if meaning == "binary":
        return labels, None, 2, f"masks are {_show(values)}: class 1 where not 0"
    instances = tuple(pair.mask.astype(np.int32) for pair in pairs)
    return labels, instances, 2, "masks are instance numbers: class 1 where not 0"


def _guess(values: list[int]) -> MaskValues:
    """Choose a meaning if there is only one; else ``"auto"``."""
    if values in ([0, 255], [0, 65535]):
        return "binary"
    if values == [0, 1]:
        return "classes"
    if len(values) > MAX_CLASSES and values[0] == 0:
        return "instances"
    return "auto"


def _ambiguous(pairs: list[_Pair], values: list[int]) -> str:
    said = f"the masks hold {_show(values)}, which can mean more than one thing: say "
    if len(values) == 1 or 0 not in values:
        return said + "mask_values='classes' if these are class indices"
    if len(values) == 2:
        return (
            said + f"mask_values='binary' if {values[1]} is the foreground, or 'instances' if "
            "every mask holds one object"
        )
    numbers = sum(np.count_nonzero(np.unique(pair.mask)) for pair in pairs)
    pieces = sum(int(label(pair.mask, background=0, connectivity=2).max()) for pair in pairs)
    hint = (
        "each number is one piece, as instances are"
        if pieces <= 1.1 * numbers
        else f"{numbers} areas of a number are in {pieces} pieces, as classes are"
    )
    return (
        said + "mask_values='classes' (class indices), 'instances' (objects, numbered) or "
        f"'binary' (all but 0 is foreground). {hint[0].upper()}{hint[1:]}"
    )


def _as_classes(
    pairs: list[_Pair], values: list[int], problems: list[str]
) -> tuple[tuple[np.ndarray, ...], None, int, str] | None:
    number = values[-1] + 1
    # A class may be missing in few images; 0, 1, 2, 255 is another thing.
    if number > MAX_CLASSES or number > 2 * len(values):
        problems.append(
            f"the masks hold {_show(values)}: as class indices that makes {number} classes, most "
            "of them never used. Renumber them 0, 1, 2, …, or choose another mask_values"
        )
        return None
    labels = tuple(pair.mask.astype(np.uint8) for pair in pairs)
    return labels, None, number, f"masks are class indices 0 to {values[-1]}"


def _show(values: list[int]) -> str:
    if len(values) <= 6:
        texts = [str(value) for value in values]
        return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]
    return f"{len(values)} values ({', '.join(map(str, values[:3]))}, …, {values[-1]})"
