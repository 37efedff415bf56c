"""What is wrong with a folder of images and masks: "why is my mask black?", answered by the files.

Explained in chapter 7. `check_folder` looks at files only; that the network's output needs an arg
max, or that float16 made the loss NaN, no folder can show.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image
from scipy.ndimage import binary_dilation

from unet_tutorial import _folder
from unet_tutorial._folder import FolderError, MaskValues
from unet_tutorial._own_images import Folders, decide
from unet_tutorial.datasets import how_many_to_hold_out

__all__ = ["Finding", "check", "check_folder"]

# Shares of all pixels, and of pixels of a mask.
RARE, MOST = 0.01, 0.5


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    severity : {"repair", "note"}
        Whether something must be repaired before training, or is only good to know.
    fault : str
        A few words.
    files : tuple of str
        Names of the files; empty if it is about all of them.
    detail : str
        What was seen, and why it matters.
    repair : str
        What to do.

    Examples
    --------
    >>> print(Finding("repair", "empty file", ("a.png",), "It has no bytes.", "Copy it again."))
    REPAIR  empty file: a.png
            It has no bytes.
            → Copy it again.
    """

    severity: Literal["repair", "note"]
    fault: str
    files: tuple[str, ...]
    detail: str
    repair: str

    def __str__(self) -> str:
        shown = ", ".join(self.files[:8])
        if len(self.files) > 8:
            shown += f", … ({len(self.files)} files)"
        head = f"{self.severity.upper():<8}{self.fault}" + (f": {shown}" if shown else "")
        lines = [
            head,
            *(line for line in (self.detail, self.repair and f"→ {self.repair}") if line),
        ]
        return "\n        ".join(lines)


def check_folder(
    images: str | Path,
    masks: str | Path,
    *,
    validation: tuple[str | Path, str | Path] | float = 0.2,
    mask_values: MaskValues = "auto",
    depth: int = 4,
) -> list[Finding]:
    """Look for the usual faults in images and masks of one's own.

    Parameters
    ----------
    images, masks : str or Path
        Two folders or two TIFF stacks, as `unet_tutorial.datasets.from_folder` takes them.
    validation : (images, masks) or float
        What will be held out: others of the same kind, or a fraction.
    mask_values : {"auto", "binary", "classes", "instances"}
        What the numbers of the masks mean, if it is known.
    depth : int
        Poolings of the network.

    Returns
    -------
    list of Finding
        What must be repaired first. Empty if nothing was found at all.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("images", "masks"):
    ...         (Path(folder) / part).mkdir()
    ...     for index in range(5):
    ...         shades = np.random.default_rng(index).integers(0, 255, (32, 32), np.uint8)
    ...         Image.fromarray(shades).save(f"{folder}/images/{index}.png")
    ...         disk = np.hypot(*np.mgrid[-16:16, -16:16]) < 6 + index
    ...         Image.fromarray(disk.astype(np.uint8)).save(f"{folder}/masks/{index}.png")
    ...     findings = check_folder(f"{folder}/images", f"{folder}/masks")
    >>> for finding in findings:
    ...     print(finding)
    NOTE    masks that look black
            They hold 0 and 1: class indices, as a network wants them, ...
            → To look at one: multiply it by 255, or open it with a color map.
    """
    held_out: Folders | float
    if isinstance(validation, tuple):
        held_out = Folders(Path(validation[0]), Path(validation[1]), 0.0)
    else:
        held_out = validation
    return check(Folders(Path(images), Path(masks), held_out), mask_values=mask_values, depth=depth)


def check(folders: Folders, *, mask_values: MaskValues = "auto", depth: int = 4) -> list[Finding]:
    """Do what `check_folder` does, for folders that were found already."""
    findings: list[Finding] = []
    pairs = _read(folders, "", findings)
    first = len(pairs)
    if isinstance(folders.validation, Folders):
        pairs += _read(folders.validation, "validation/", findings)
        held_out = set(range(first, len(pairs)))
    else:
        try:
            number = how_many_to_hold_out(folders.validation, first, str(folders.images))
        except FolderError:  # too few to hold out any; what is wrong with them comes first
            number = 0
        held_out = set(range(first - number, first))
    findings += _convert(_folder._check_agreement(pairs))
    if not pairs:
        return _sorted(findings)
    findings += _check_images(pairs, depth)
    findings += _check_twins(pairs, held_out)
    soft = _check_soft(pairs)
    findings += soft
    if not soft:
        findings += _check_values(pairs, held_out, mask_values)
    return _sorted(findings)


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity != "repair")


# --- files --------------------------------------------------------------------------------------


def _read(folders: Folders, prefix: str, findings: list[Finding]) -> list[_folder._Pair]:
    problems: list[str] = []
    pairs = _folder.read_pairs(folders.images, folders.masks, problems)
    findings += _convert(problems, prefix)
    findings += _check_formats(folders, prefix)
    return [
        pair._replace(
            name=prefix + pair.name,
            image_file=prefix + pair.image_file,
            mask_file=prefix + pair.mask_file,
        )
        for pair in pairs
    ]


# How `_folder` begins its sentences, and what to do about each.
_KNOWN = (
    (r"no mask of that name", "image without a mask", "Draw or find it, or move the image away."),
    (r"no image of that name", "mask without an image", "Find it, or move the mask away."),
    (r"a second (image|mask)", "two files of one name", "Keep one of them."),
    (r"a JPEG cannot be a mask", "JPEG mask", "Export it anew as PNG or TIFF, from the original."),
    (r"cannot be read", "broken file", "Copy or export it again."),
    (r"a mask in color", "mask in color", "Give every color its number: 0, 1, 2, …"),
    (r"a mask with fractions", "mask with fractions", "mask = (mask > 0.5).astype(np.uint8)"),
    (r"\d+×\d+ pixels, its image", "mask and image of different size",
     "Export both again in one size; resize a mask with order 0 (nearest neighbor) only."),
    (r"\d+ channels, most images", "gray and color images mixed", "Convert them to one kind."),
    (r"a stack of", "stack among single images", "Save its pages as files."),
    (r"no such folder", "missing folder", "Check its name."),
    (r"no (image|mask)[;, ]", "empty folder", "Check its name, and the format of its files."),
)  # fmt: skip


def _convert(problems: Sequence[str], prefix: str = "") -> list[Finding]:
    """Sort what `_folder` says by its fault; every problem begins with its file."""
    by_fault: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for problem in problems:
        file, _, said = problem.partition(": ")
        for pattern, fault, repair in _KNOWN:
            if re.match(pattern, said):
                by_fault[fault, repair].append((prefix + file, said))
                break
        else:
            by_fault["cannot be used", ""].append((prefix + file if said else "", said or problem))
    findings = []
    for (fault, repair), found in by_fault.items():
        files = tuple(dict.fromkeys(file for file, _ in found if file))
        findings.append(Finding("repair", fault, files, _sentence(found[0][1]), repair))
    return findings


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "…")) else text + "."


def _check_formats(folders: Folders, prefix: str) -> list[Finding]:
    """Note what is read in a way that may surprise: 16 bits, transparency, palettes."""
    long, transparent, palette = [], [], []
    for folder in (folders.images, folders.masks):
        for file in _folder._list(folder) if folder.is_dir() else [folder]:
            try:
                kind = _kind(file)
            except Exception:  # the reader has said what is wrong with it
                continue
            name = (
                f"{prefix}{file.name}" if folder == folders.images else f"{prefix}mask {file.name}"
            )
            if kind == "16-bit" and folder == folders.images:
                long.append(name)
            elif kind == "alpha":
                transparent.append(name)
            elif kind == "palette":
                palette.append(name)
    findings = []
    if long:
        findings.append(
            Finding(
                "note",
                "16-bit images",
                tuple(long),
                "All are divided by one number, the smallest of 255, 1023, 4095, 16383, 65535 that "
                "none exceeds, so a 12-bit camera's images are not left in the dark.",
                "New images must come with the same scale.",
            )
        )
    if transparent:
        findings.append(
            Finding(
                "note",
                "transparency",
                tuple(transparent),
                "The alpha channel is dropped: what was hidden by it is seen by the network.",
                "Nothing, unless something was hidden. Save without alpha to be sure.",
            )
        )
    if palette:
        findings.append(
            Finding(
                "note",
                "palette",
                tuple(palette),
                "Of a mask the numbers are read, not the colors; of an image the colors.",
                "Look at the numbers: np.unique(np.asarray(Image.open(file))).",
            )
        )
    return findings


def _kind(file: Path) -> str:
    if file.suffix.lower() in _folder.TIFF:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            if page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel in (2, 4):
                return "alpha"
            return (
                "16-bit"
                if page.dtype is not None and page.dtype.kind in "ui" and (page.dtype.itemsize > 1)
                else ""
            )
    with Image.open(file) as picture:
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            return "alpha"
        return {"P": "palette"}.get(picture.mode, "16-bit" if picture.mode.startswith("I") else "")


# --- images -------------------------------------------------------------------------------------


def _check_images(pairs: Sequence[_folder._Pair], depth: int) -> list[Finding]:
    findings = []
    broken, constant, small, range_unknown = [], [], [], []
    for pair in pairs:
        image = pair.image
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            broken.append(pair.image_file)
        elif image.min() == image.max():
            constant.append(pair.image_file)
        elif image.dtype.kind not in "bu" and (
            image.min() < 0
            or (image.max() > 1 if image.dtype.kind == "f" else image.max() >= 2**16)
        ):
            range_unknown.append(pair.image_file)
        if min(image.shape[1:]) < 2**depth:
            small.append(pair.image_file)
    if broken:
        findings.append(
            Finding(
                "repair",
                "NaN or infinite values",
                tuple(broken),
                "One such pixel makes the loss NaN, and then every weight of the network.",
                "Find out where they come from (a division by zero?); np.nan_to_num, or leave the "
                "image out.",
            )
        )
    if constant:
        findings.append(
            Finding(
                "repair",
                "image of one value",
                tuple(constant),
                "Every pixel is the same: there is nothing to see in it.",
                "Export it again, or move it and its mask away.",
            )
        )
    if range_unknown:
        findings.append(
            Finding(
                "repair",
                "unknown range of values",
                tuple(range_unknown),
                "Expected 8 or 16 bits without sign, or fractions from 0 to 1.",
                "Divide all of them by one number, and new images by the same.",
            )
        )
    if small:
        findings.append(
            Finding(
                "repair",
                "image too small",
                tuple(small),
                f"A network with {depth} poolings sees at least {2**depth} pixels at once.",
                "Leave it out, or choose fewer poolings (unet-tutorial train does so by itself, "
                "for all images).",
            )
        )
    sizes = {pair.image.shape[1:] for pair in pairs}
    if len(sizes) > 1:
        low, high = min(sizes, key=np.prod), max(sizes, key=np.prod)
        findings.append(
            Finding(
                "note",
                "images of different size",
                (),
                f"From {low[0]}×{low[1]} to {high[0]}×{high[1]}. Crops for training are no larger "
                "than the smallest.",
                "Nothing, if a pixel is as large in all of them. Else bring them to one scale.",
            )
        )
    return findings


def _check_twins(pairs: Sequence[_folder._Pair], held_out: set[int]) -> list[Finding]:
    """Find images that are there twice."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        head = f"{pair.image.shape}{pair.image.dtype}".encode()
        groups[hashlib.sha256(head + np.ascontiguousarray(pair.image).tobytes()).digest()].append(
            index
        )
    leaks, doubts, twins = [], [], []
    for group in (group for group in groups.values() if len(group) > 1):
        names = " = ".join(pairs[index].image_file for index in group)
        masks = [pairs[index].mask for index in group]
        if len({index in held_out for index in group}) > 1:
            leaks.append(names)
        elif any(not np.array_equal(mask, masks[0]) for mask in masks[1:]):
            doubts.append(names)
        else:
            twins.append(names)
    findings = []
    if leaks:
        findings.append(
            Finding(
                "repair",
                "same image in training and validation",
                tuple(leaks),
                "The score on it is that of a memory, not of a network that understands.",
                "Remove one, or hold out others; look for near copies (frames, slices) as well.",
            )
        )
    if doubts:
        findings.append(
            Finding(
                "repair",
                "one image with two masks",
                tuple(doubts),
                "The network is told two things about the same pixels.",
                "Keep the mask that is right.",
            )
        )
    if twins:
        findings.append(
            Finding("note", "image there twice", tuple(twins), "It counts double.", "Remove one.")
        )
    return findings


# --- masks --------------------------------------------------------------------------------------


def _check_soft(pairs: Sequence[_folder._Pair]) -> list[Finding]:
    soft = tuple(pair.mask_file for pair in pairs if is_soft(pair.mask))
    if not soft:
        return []
    return [
        Finding(
            "repair",
            "soft mask",
            soft,
            "Besides 0 and 255 it holds the values between, at the edges: it was a JPEG once, was "
            "resized with smoothing, or drawn with an antialiased brush.",
            "mask = 255 * (mask > 127).astype(np.uint8), saved as PNG; resize masks with order 0 "
            "(nearest neighbor).",
        )
    ]


def is_soft(mask: np.ndarray) -> bool:
    """Tell whether a mask is one of 0 and 255 whose edges were smoothed.

    Examples
    --------
    >>> is_soft(np.repeat([[0, 0, 0, 60, 128, 190, 255, 255]], 8, axis=0))
    True
    >>> is_soft(np.repeat([[0, 0, 0, 255, 255, 255, 255, 255]], 8, axis=0))
    False
    >>> is_soft(np.repeat([[0, 0, 0, 1, 2, 3, 4, 5]], 8, axis=0))
    False
    """
    values = np.unique(mask)
    if values[-1] > 255 or values[-1] < 200 or len(values) < 3:
        return False
    bright = mask > 127
    dark = mask[~bright]
    if not dark.size or np.count_nonzero(dark < 16) < 0.5 * dark.size:
        return False
    # Between, there are only edges; objects with numbers up to 255 have insides.
    near_ends = (mask < 16) | (mask >= 240)
    edge = binary_dilation(bright, iterations=3) & binary_dilation(~bright, iterations=3)
    between = (mask > 0) & (mask < 255)
    if (edge | near_ends)[between].mean() < 0.9:
        return False
    # An object has one number; a smooth edge has a new one at almost every pixel.
    sizes = np.bincount(mask[(mask >= 16) & (mask < 240)].ravel())
    sizes = sizes[sizes > 0]
    return bool(len(sizes) >= 3 and np.median(sizes) < 9)


def _check_values(
    pairs: Sequence[_folder._Pair], held_out: set[int], mask_values: MaskValues
) -> list[Finding]:
    masks = [pair.mask for pair in pairs]
    each = [tuple(np.unique(mask).tolist()) for mask in masks]
    values = sorted(set().union(*each))
    mixed = _check_mixed(pairs, each)
    if mixed and mask_values == "auto":
        return mixed
    problems: list[str] = []
    meaning = decide(masks) if mask_values == "auto" else mask_values
    labels, _, number, _ = _folder._interpret(list(pairs), meaning, problems)
    if problems:
        fault = "empty masks" if values == [0] else "masks that can mean more than one thing"
        if values != [0] and (0 not in values or meaning == "classes"):
            fault = "masks whose numbers are no class indices"
        repair = "" if values != [0] else "Look at one: was the export of another layer?"
        return [Finding("repair", fault, (), _sentence(problem), repair) for problem in problems]
    return [
        *_say_meaning(values, meaning),
        *_check_shares(pairs, labels, number, held_out),
        *_check_inverted(pairs, labels, number),
    ]


def _check_mixed(pairs: Sequence[_folder._Pair], each: Sequence[tuple[int, ...]]) -> list[Finding]:
    """Find masks of 0 and 255 among masks of 0 and 1, and 255 among class indices."""
    ones = [pair.mask_file for pair, values in zip(pairs, each, strict=True) if values[-1] == 1]
    full = [
        pair.mask_file
        for pair, values in zip(pairs, each, strict=True)
        if values[-1] in (255, 65535) and len(values) <= 2
    ]
    known = set().union(*each)
    if ones and full and known <= {0, 1, 255, 65535}:
        fewer = ones if len(ones) < len(full) else full
        return [
            Finding(
                "repair",
                "two ways to write a mask",
                tuple(fewer),
                f"{len(ones)} masks hold 0 and 1, {len(full)} hold 0 and 255: together that would "
                "be two classes for one thing.",
                "mask = (mask > 0).astype(np.uint8), for all of them.",
            )
        ]
    below = sorted(known - {255})
    if 255 in known and 1 < len(below) <= 64 and below == list(range(len(below))):
        files = [p.mask_file for p, values in zip(pairs, each, strict=True) if 255 in values]
        return [
            Finding(
                "repair",
                "255 among class indices",
                tuple(files),
                f"Besides 0 to {below[-1]} they hold 255, in many sets the mark of pixels that do "
                "not count. This package has no such class, and cross-entropy would fail on it.",
                "Give these pixels a class, mask[mask == 255] = 0, or leave the images out.",
            )
        ]
    return []


def _say_meaning(values: list[int], meaning: MaskValues) -> list[Finding]:
    if meaning == "classes" and values[-1] < 32:
        held = "0 and 1" if values == [0, 1] else f"0 to {values[-1]}"
        times = 255 // values[-1]
        return [
            Finding(
                "note",
                "masks that look black",
                (),
                f"They hold {held}: class indices, as a network wants them, but too dark to be "
                "seen. Nothing is wrong.",
                f"To look at one: multiply it by {times}, or open it with a color map.",
            )
        ]
    if meaning == "binary":
        return [
            Finding(
                "note",
                f"masks of 0 and {values[-1]}",
                (),
                "They are read as two classes: class 1 where not 0. Nothing is wrong.",
                "A loss of one's own wants class indices: labels = (mask > 0).astype(np.int64).",
            )
        ]
    if meaning == "instances":
        return [
            Finding(
                "note",
                "numbered objects",
                (),
                f"The masks hold numbers up to {values[-1]}, one for each object: class 1 where "
                "not 0. Where objects touch, the network will make one of them.",
                "If they are classes: --mask-values classes.",
            )
        ]
    return []


def _check_shares(
    pairs: Sequence[_folder._Pair],
    labels: Sequence[np.ndarray],
    number: int,
    held_out: set[int],
) -> list[Finding]:
    findings = []
    empty = tuple(p.mask_file for p, label in zip(pairs, labels, strict=True) if not label.any())
    if empty:
        findings.append(
            Finding(
                "note",
                "empty mask",
                empty,
                "All of it is background. Right, if the image shows nothing; else the network "
                "learns to overlook.",
                "Look at its image.",
            )
        )
    full = tuple(p.mask_file for p, label in zip(pairs, labels, strict=True) if label.all())
    if full:
        findings.append(
            Finding("note", "mask without background", full, "No pixel of it is 0.", "Look at it.")
        )
    counts = np.stack([np.bincount(label.ravel(), minlength=number) for label in labels])
    shares = counts.sum(axis=0) / counts.sum()
    for index, share in enumerate(shares):
        if 0 < share < RARE:
            findings.append(
                Finding(
                    "note",
                    "rare class",
                    (),
                    f"Class {index} has {share:.2%} of all pixels: a network that never finds it "
                    f"is right at {1 - share:.1%} of the pixels, and shows black.",
                    "Judge by Dice, not by the share of right pixels; train with "
                    "loss='cross-entropy+dice' (unet-tutorial train does).",
                )
            )
    seen = [index for index in range(len(pairs)) if index not in held_out]
    trained, scored = counts[seen].sum(axis=0) > 0, counts[sorted(held_out)].sum(axis=0) > 0
    for index in range(number):
        if held_out and scored[index] and not trained[index]:
            findings.append(
                Finding(
                    "repair",
                    "class only in validation",
                    tuple(pairs[k].mask_file for k in sorted(held_out) if counts[k, index]),
                    f"Class {index} is in no image that is trained on: it cannot be learned.",
                    "Exchange some images.",
                )
            )
        elif held_out and trained[index] and not scored[index]:
            findings.append(
                Finding(
                    "note",
                    "class absent from validation",
                    (),
                    f"Class {index} is in no image that is held out: its score will mean nothing.",
                    "Hold out an image that has it.",
                )
            )
        elif not trained[index] and not scored[index]:
            findings.append(
                Finding(
                    "note",
                    "class that is never used",
                    (),
                    f"No pixel has class {index}, though others have higher numbers.",
                    "Renumber them, unless other images will have it.",
                )
            )
    return findings


def _check_inverted(
    pairs: Sequence[_folder._Pair], labels: Sequence[np.ndarray], number: int
) -> list[Finding]:
    """Find masks whose foreground is the background."""
    if number != 2:
        return []
    signs = [_looks_inverted(label) for label in labels]
    odd = [pair.mask_file for pair, sign in zip(pairs, signs, strict=True) if sign]
    if not odd:
        return []
    if len(odd) <= len(pairs) / 3:
        # Few among many: sure only if the image says so too, brighter where the others are darker.
        contrast = [_contrast(p.image, label) for p, label in zip(pairs, labels, strict=True)]
        usual = np.sign(np.median([c for c, sign in zip(contrast, signs, strict=True) if not sign]))
        sure = [
            pair.mask_file
            for pair, sign, c in zip(pairs, signs, contrast, strict=True)
            if sign and np.sign(c) == -usual != 0
        ]
        if not sure:
            return []
        return [
            Finding(
                "repair",
                "inverted mask",
                tuple(sure),
                "Foreground is what is background in the other masks: it fills most of the image "
                "and its rim, and lies where the others have none, by brightness.",
                "mask = mask.max() - mask, for these.",
            )
        ]
    if len(odd) >= 2 * len(pairs) / 3:
        return [
            Finding(
                "note",
                "masks that may be inverted",
                tuple(odd),
                "Foreground (not 0) fills most of the image and most of its rim.",
                "Look at one. If the objects are 0: mask = mask.max() - mask, for all of them.",
            )
        ]
    return []


def _looks_inverted(label: np.ndarray) -> bool:
    rim = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    return bool(label.mean() > MOST and rim.mean() > 0.75 and not label.all())


def _contrast(image: np.ndarray, label: np.ndarray) -> float:
    """Mean brightness of the foreground less that of the background; 0 if one is not there."""
    if not label.any() or label.all() or image.shape[1:] != label.shape:
        return 0.0
    gray = image.astype(np.float64).mean(axis=0)
    return float(gray[label > 0].mean() - gray[label == 0].mean())
