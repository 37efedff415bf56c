"""A run: a network trained on one's own images, in a folder that holds all that using it needs.

``model.safetensors`` are the weights, ``run.json`` says how to build the network, what its classes
are called, how images are scaled and how good it is, ``report.html`` shows it, and ``checkpoint``
is there as long as the training has not ended.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import binary_erosion

from unet_tutorial import __version__
from unet_tutorial._files import write_text_whole, write_whole
from unet_tutorial._folder import READABLE, MaskValues, natural_order
from unet_tutorial._own_images import Folders, Own, read_image, read_own
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.devices import choose_device, describe_machine
from unet_tutorial.distributed import join
from unet_tutorial.inference import predict
from unet_tutorial.metrics import dice, pixel_error
from unet_tutorial.profiles import fitting_profile
from unet_tutorial.training import TrainingConfig, TrainingResult, fit
from unet_tutorial.unet import UNet

__all__ = ["Run", "RunError", "Score", "choose_settings", "predict_files", "train_run"]

MODEL, ABOUT, REPORT, CHECKPOINT = "model.safetensors", "run.json", "report.html", "checkpoint"
FORMAT = 1  # of run.json
# Told apart by people who see few colors (Okabe and Ito), on dark and on light.
CLASS_COLORS = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


class RunError(ValueError):
    """A run folder cannot be used, or would be written over."""


@dataclass(frozen=True)
class Score:
    """How well one held-out image was segmented.

    Attributes
    ----------
    name : str
        The image's.
    pixel_error : float
        Share of pixels with the wrong class, 0 to 1.
    dice : dict of str to float
        By class but the background; only classes that are there or were predicted.
    """

    name: str
    pixel_error: float
    dice: dict[str, float]

    @property
    def mean_dice(self) -> float:
        """Mean over the classes; 1 where there was nothing to find and nothing was found."""
        return float(np.mean(list(self.dice.values()))) if self.dice else 1.0


@dataclass
class Run:
    """A trained network with all that is needed to use it.

    Attributes
    ----------
    folder : Path
        Where it lies.
    model : UNet
        In evaluation mode, on the CPU.
    class_names : tuple of str
        By class index.
    full_scale : int
        What 16-bit images are divided by; 0 if it was trained on none. 8-bit images are divided
        by 255.
    even : bool
        Whether every image is divided by its own brightness first.
    about : dict
        All of ``run.json``: settings, versions, curves, scores.
    """

    folder: Path
    model: UNet
    class_names: tuple[str, ...]
    full_scale: int
    even: bool
    about: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder.

        Parameters
        ----------
        folder : str or Path
            What `train_run` wrote.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            If it is no run folder, or its training has not come to a network yet.
        """
        folder = Path(folder)
        about = _read_about(folder)
        if about is None:
            raise RunError(f"{folder}: no run folder, it has no {ABOUT}")
        if not (folder / MODEL).exists():
            raise RunError(
                f"{folder}: its training has not ended and has left no {MODEL} yet; the same "
                "`unet-tutorial train` command goes on with it"
            )
        network = about["network"]
        model = UNet(network["in_channels"], network["num_classes"], **network["options"])
        try:
            model.load_state_dict(load_file(folder / MODEL))
        except Exception as error:  # safetensors and torch have errors of their own
            raise RunError(
                f"{folder / MODEL}: not the weights of this network ({error})"
            ) from error
        return cls(
            folder, model.eval(), tuple(about["classes"]), about["full_scale"], about["even"], about
        )

    def read(self, file: str | Path) -> np.ndarray:
        """Read an image file as the network wants it: (pages, C, H, W) float32.

        Raises
        ------
        ValueError
            If it cannot be read, or is of another kind than the images of the training.
        """
        return read_image(
            Path(file), channels=self.model.in_channels, full_scale=self.full_scale, even=self.even
        )


def choose_settings(
    data: SegmentationData, *, device: torch.device | None = None
) -> tuple[dict[str, Any], TrainingConfig]:
    """Choose a network and a training for a data set and a machine.

    Parameters
    ----------
    data : SegmentationData
        Images and labels.
    device : torch.device, optional
        By default what ``"auto"`` takes.

    Returns
    -------
    dict, TrainingConfig
        Options of `UNet`, and the settings of `fit`. On a CPU 16 base channels, or 8 if it has no
        bfloat16 arithmetic, and a budget that two recent cores finish in under three minutes; on
        a GPU 64 and larger crops. The crop is as large as the smallest image allows, and a small
        image gets a network with fewer poolings, so that its bottleneck still has 2×2 pixels.
        Where a class has less than a twentieth of the pixels, Dice joins the loss.

    Raises
    ------
    ValueError
        If an image is too small for any network.

    Examples
    --------
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=4, size=72)
    membranes: ...
    >>> options, config = choose_settings(data, device=torch.device("cpu"))
    >>> options["depth"], config.crop_size
    (4, 64)
    """
    device = device or choose_device()
    smallest = min(min(image.shape[1:]) for image in data.images)
    if smallest < 4:
        raise ValueError(
            f"the smallest image has a side of {smallest} pixels: at least 4 are needed"
        )
    depth = min(4, int(np.log2(smallest)) - 1)
    step = 2**depth
    profile = fitting_profile(device)
    large, batch = profile.config.crop_size, profile.config.batch_size
    crop = min(large, smallest // step * step)
    # Small crops: more of them, so that a step sees as many pixels.
    batch = min(64, round(batch * (large / crop) ** 2))
    rare = min(data.class_fractions) < 0.05
    return (
        {"base_channels": profile.base_channels, "depth": depth, "norm": "batch"},
        TrainingConfig(
            steps=STEPS,
            batch_size=batch,
            crop_size=crop,
            learning_rate=profile.config.learning_rate,
            loss="cross-entropy+dice" if rare else "cross-entropy",
            validate_every=STEPS // 5,
            device=str(device),
        ),
    )


STEPS = 500


def train_run(
    folders: Folders,
    out: str | Path,
    *,
    mask_values: MaskValues = "auto",
    class_names: Sequence[str] | None = None,
    even: bool = False,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    report: Callable[[str], Any] = print,
) -> Run:
    """Train a network on images of one's own, and write a run folder.

    Where the folder holds an unfinished training of the same images with the same settings, that
    one goes on; a finished one is never touched.

    Where a launcher has started several processes, all train; the first one looks at the folder,
    reports, scores and writes.

    Parameters
    ----------
    folders : Folders
        Where images and masks lie, and what is held out.
    out : str or Path
        The run folder; made if it is missing.
    mask_values, class_names
        As in `unet_tutorial.datasets.from_folder`, but more is decided here: see `read_own`.
    even : bool
        Whether to divide each image by its own brightness (the value that 1 of 1000 pixels is
        above): for exposures that differ more than what they show. An image with nothing in it
        has its noise made bright.
    steps : int, optional
        Gradient steps, instead of `choose_settings`' budget.
    seed : int
        Draws first weights, crops, flips and turns.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    report : callable
        Gets lines of progress.

    Returns
    -------
    Run
        ``run.about["status"]`` is ``"finished"``, or ``"interrupted"`` after Ctrl-C; then the
        network so far is in the folder, and the same call goes on.

    Raises
    ------
    RunError
        If the folder holds a finished run, one with other settings, or other files.
    FolderError
        With all that is wrong with the images.
    TeamError
        In the other processes, if the first one has failed.
    """
    out = Path(out)
    team = join()
    if not team.first:
        report = _nothing
    before = team.from_first(lambda: _unfinished(out))
    own = read_own(folders, mask_values=mask_values, class_names=class_names, even=even)
    data = own.data
    report(_describe(own))
    try:
        where = choose_device(device)
    except RuntimeError as error:  # torch's own, of a name that it does not know
        raise ValueError(f"device {device!r}: use 'auto', 'cpu', 'cuda' or 'mps'") from error
    options, config = choose_settings(data, device=where)
    config = replace(config, seed=seed)
    if steps is not None:
        config = replace(config, steps=steps, validate_every=max(1, steps // 5))
    # Batch normalization needs two values of each channel, in every process.
    one_value = config.batch_size <= team.size and config.crop_size == 2 ** options["depth"]
    batch_size = 2 * team.size if one_value else team.round_up(config.batch_size)
    config = replace(config, batch_size=batch_size)
    torch.manual_seed(seed)
    model = UNet(data.in_channels, data.num_classes, **options)
    about = {"name": out.resolve().name, **_about(own, model, config)}
    about["machine"]["processes"] = team.size
    if before is not None:
        _must_agree(out, before, about)
        report(f"{out}: an unfinished training of these images; it goes on")
    team.from_first(lambda: _begin(out, about))
    report(
        f"a U-Net with {sum(p.numel() for p in model.parameters()):,} weights, depth "
        f"{options['depth']}; {config.steps} steps of {config.batch_size} crops of "
        f"{config.crop_size}×{config.crop_size} on {where}"
        + (f", shared by {team.size} processes" if team.size > 1 else "")
    )
    result = fit(model, data, config, report=report, checkpoint=out / CHECKPOINT)
    if result.interrupted and not result.steps_done:
        raise KeyboardInterrupt
    model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    about = team.from_first(lambda: _finish(out, own, result, about, report))
    return Run(out, model.eval(), own.data.class_names, own.full_scale, own.even, about)


def _unfinished(out: Path) -> dict[str, Any] | None:
    """Return what an unfinished run says of itself; refuse a folder that holds anything else."""
    before = _read_about(out)
    if before is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: there is something else already; choose another folder")
    if before is not None and before.get("status") == "finished":
        raise RunError(
            f"{out}: a finished run, which is not written over; choose another folder, or remove "
            "this one"
        )
    return before


def _begin(out: Path, about: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    _write_about(out, about)


def _nothing(line: str) -> None:
    """Be silent: the first process reports."""


def _finish(
    out: Path,
    own: Own,
    result: TrainingResult,
    about: dict[str, Any],
    report: Callable[[str], Any],
) -> dict[str, Any]:
    """Score, and write weights, report and ``run.json``, in this order: the last one says done."""
    from unet_tutorial._run_report import write_report

    held_out = own.data.validation
    guesses = [predict(result.model, image).argmax(0) for image in held_out.images]
    scores = [
        _score(name, guess, truth, own.data.class_names)
        for name, guess, truth in zip(held_out.image_names, guesses, held_out.labels, strict=True)
    ]
    about |= {
        "status": "interrupted" if result.interrupted else "finished",
        "steps_done": result.steps_done,
        "seconds": round(result.seconds, 1),
        "precision": result.precision,
        "scores": _overall(scores, guesses, held_out),
        "images": [asdict(score) for score in scores],
        "curves": {
            "loss": [round(value, 5) for value in result.losses],
            "validation": [asdict(one) for one in result.validations],
        },
    }
    weights = {
        name: value.detach().cpu().contiguous() for name, value in result.model.state_dict().items()
    }
    write_whole(out / MODEL, lambda half: save_file(weights, half))
    write_whole(out / REPORT, lambda half: write_report(half, about, held_out, guesses, scores))
    _write_about(out, about)
    if not result.interrupted:
        (out / CHECKPOINT).unlink(missing_ok=True)
    for line in _summary(out, about):
        report(line)
    return about


def _describe(own: Own) -> str:
    data = own.data
    sizes = sorted({image.shape[1:] for image in data.images})
    shown = " to ".join(f"{h}×{w}" for h, w in sizes[:1] + sizes[1:][-1:])
    return (
        f"{len(data)} images of {shown}, {len(data.validation)} held out; "
        f"{'; '.join(own.rules)}; classes {', '.join(data.class_names)}"
    )


def _summary(out: Path, about: dict[str, Any]) -> list[str]:
    lines = []
    if about["scores"]:
        values = ", ".join(f"{name} {v:.3f}" for name, v in about["scores"]["dice"].items())
        lines.append(
            f"held out: Dice {values}, mean over images {about['scores']['mean_dice']:.3f}; "
            f"{about['scores']['pixel_error']:.2%} of the pixels wrong"
        )
    else:
        lines.append("no image was held out: nobody knows how good it is")
    if about["status"] == "interrupted":
        lines.append(
            f"stopped after {about['steps_done']} of {about['training']['steps']} steps; the same "
            "command goes on, and the network so far can be used"
        )
    lines.append(f"{out / REPORT}: open it in a browser")
    return lines


def _about(own: Own, model: UNet, config: TrainingConfig) -> dict[str, Any]:
    machine = describe_machine(choose_device(config.device))
    return {
        "format": FORMAT,
        "status": "unfinished",
        "version": __version__,
        "machine": machine,
        "network": {
            "in_channels": model.in_channels,
            "num_classes": model.num_classes,
            "options": model.options,
        },
        "classes": list(own.data.class_names),
        "full_scale": own.full_scale,
        "even": own.even,
        "mask_values": own.mask_values,
        "training": asdict(config),
        "data": {
            "name": own.data.name,
            "rules": list(own.rules),
            "images": len(own.data),
            "held_out": list(own.data.validation.image_names),
            "checksum": _checksum(own.data),
        },
    }


def _checksum(data: SegmentationData) -> int:
    """Tell data sets apart; not against anybody's will."""
    value = 0
    for image, labels in zip(data.images, data.labels, strict=True):
        value = zlib.crc32(np.ascontiguousarray(image).tobytes(), value)
        value = zlib.crc32(np.ascontiguousarray(labels).tobytes(), value)
    return zlib.crc32(repr((data.image_names, data.validation_indices)).encode(), value)


def _must_agree(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Let a training go on only as what it was."""
    differences = []
    for part in ("network", "training", "classes", "full_scale", "even", "data"):
        old, new = before.get(part), json.loads(json.dumps(now[part]))
        if isinstance(old, dict) and isinstance(new, dict):
            for name in sorted(old.keys() | new.keys()):
                if old.get(name) != new.get(name) and not (part == "data" and name == "rules"):
                    told = "" if name == "checksum" else f" {old.get(name)} → {new.get(name)}"
                    differences.append(f"{'the images' if part == 'data' else name}{told}")
        elif old != new:
            differences.append(f"{part} {old} → {new}")
    if differences:
        raise RunError(
            f"{out}: an unfinished training with other settings ({'; '.join(differences)}). Give "
            "the same ones to go on, or choose another folder"
        )


def _score(name: str, guess: np.ndarray, truth: np.ndarray, class_names: Sequence[str]) -> Score:
    values = {
        class_name: dice(guess == index, truth == index)
        for index, class_name in enumerate(class_names)
        if index and ((guess == index).any() or (truth == index).any())
    }
    return Score(name, pixel_error(guess, truth), values)


def _overall(
    scores: Sequence[Score], guesses: Sequence[np.ndarray], data: SegmentationData
) -> dict[str, Any]:
    """Score all pixels of all images together, and average over the images."""
    if not guesses:
        return {}
    guess = np.concatenate([one.ravel() for one in guesses])
    truth = np.concatenate([one.ravel() for one in data.labels])
    score = _score("", guess, truth, data.class_names)
    return {
        "dice": score.dice,
        "mean_dice": float(np.mean([one.mean_dice for one in scores])),
        "pixel_error": score.pixel_error,
    }


# --- files --------------------------------------------------------------------------------------


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_whole(folder / ABOUT, text)


def _read_about(folder: Path) -> dict[str, Any] | None:
    file = folder / ABOUT
    if not file.exists():
        return None
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        known = about["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: not what unet-tutorial wrote ({error!r})") from error
    if known != FORMAT:
        raise RunError(
            f"{file}: format {known}, this version reads {FORMAT}; use the unet-tutorial "
            f"{about.get('version')} that wrote it"
        )
    return about


# --- prediction ---------------------------------------------------------------------------------


def predict_files(
    run: Run,
    images: Iterable[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    report: Callable[[str], Any] = print,
) -> list[str]:
    """Segment image files, and write a mask and an overlay for each.

    Parameters
    ----------
    run : Run
        From `Run.load`.
    images : iterable of str or Path
        PNG, TIFF or JPEG files of any size, folders with such files, or patterns (``*.png``).
    out : str or Path
        Folder for the results. ``name.png`` is the mask: its values are class indices, its palette
        gives them colors that can be seen, and `datasets.from_folder` reads it.
        ``name_overlay.png`` shows the mask over the image. The pages of a stack are
        ``name-000.png``, ….
    overwrite : bool
        Whether results that are there may be replaced.
    report : callable
        Gets a line for each image.

    Returns
    -------
    list of str
        What went wrong, by file; empty if nothing did. One bad file does not stop the others.

    Raises
    ------
    RunError
        If a result is there already: before anything is predicted. If there is no image.
    """
    out = Path(out)
    problems: list[str] = []
    files = _list_images(images, problems)
    if not files and not problems:
        raise RunError("no image was given")
    chosen: dict[str, Path] = {}
    for file in files:
        if file.stem in chosen:
            problems.append(f"{file}: its result would have the name of {chosen[file.stem]}'s")
        else:
            chosen[file.stem] = file
    there = [
        path.name
        for stem in chosen
        for path in (out / f"{stem}.png", out / f"{stem}-000.png")
        if path.exists()
    ]
    if there and not overwrite:
        shown = ", ".join(there[:3]) + (f", … ({len(there)})" if len(there) > 3 else "")
        raise RunError(
            f"{out}: results are there already ({shown}); choose another folder, or allow it "
            "with --overwrite"
        )
    inputs = {file.resolve() for file in files}
    for number, (stem, file) in enumerate(chosen.items(), start=1):
        targets = [out / f"{stem}.png", out / f"{stem}_overlay.png"]
        if any(target.resolve() in inputs for target in targets):
            problems.append(f"{file}: its result would replace an image; choose another --out")
            continue
        try:
            pages = run.read(file)
            out.mkdir(parents=True, exist_ok=True)  # only once there is something to put there
            names = [stem] if len(pages) == 1 else [f"{stem}-{k:03d}" for k in range(len(pages))]
            shares = np.zeros(len(run.class_names))
            for name, page in zip(names, pages, strict=True):
                mask = predict(run.model, page).argmax(0).astype(np.uint8)
                shares += np.bincount(mask.ravel(), minlength=len(shares)) / mask.size / len(pages)
                _save(out / f"{name}.png", palette_image(mask, len(run.class_names)))
                _save(out / f"{name}_overlay.png", Image.fromarray(overlay(page, mask)))
        except ValueError as error:
            problems.append(f"{file}: {error}")
            continue
        told = ", ".join(
            f"{share:.1%} {name}"
            for name, share in zip(run.class_names[1:], shares[1:], strict=True)
        )
        report(f"[{number}/{len(chosen)}] {file.name}: {told}")
    return problems


def _save(path: Path, picture: Image.Image) -> None:
    write_whole(path, lambda half: picture.save(half, format="PNG"))


def _list_images(given: Iterable[str | Path], problems: list[str]) -> list[Path]:
    """Turn files, folders and patterns into files, each once."""
    found: dict[Path, None] = {}
    for one in given:
        path = Path(one)
        if path.is_dir():
            inside = [file for file in path.iterdir() if file.suffix.lower() in READABLE]
            files = sorted(inside, key=lambda file: natural_order(file.name))
            if not files:
                problems.append(f"{path}: no image; {', '.join(READABLE)} are read")
        elif path.exists():
            files = [path]
        else:
            # Where no shell has done it.
            anchor = Path(path.anchor or ".")
            pattern = str(path.relative_to(anchor) if path.anchor else path)
            magic = any(sign in pattern for sign in "*?[")
            files = sorted(anchor.glob(pattern)) if magic else []
            if not files:
                problems.append(f"{path}: no such file")
        found |= dict.fromkeys(files)
    return list(found)


def palette_image(mask: np.ndarray, num_classes: int) -> Image.Image:
    """Make a picture whose values are class indices and whose colors can be seen.

    Parameters
    ----------
    mask : ndarray
        (H, W) class indices up to 255.
    num_classes : int
        How many there are, background included.

    Returns
    -------
    PIL.Image.Image
        Mode ``"P"``: ``np.asarray`` of it gives the indices back. Class 0 is black; of two
        classes the other one is white.

    Examples
    --------
    >>> picture = palette_image(np.array([[0, 1]], np.uint8), num_classes=2)
    >>> np.asarray(picture).tolist(), picture.convert("L").getpixel((1, 0))
    ([[0, 1]], 255)
    """
    picture = Image.fromarray(mask.astype(np.uint8)).convert("P")
    picture.putpalette([value for index in range(256) for value in _color(index, num_classes < 3)])
    return picture


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Tint the classes of a mask over its image, with their borders drawn in full.

    Parameters
    ----------
    image : ndarray
        (1 or 3, H, W), 0 to 1; stretched to its own darkest and brightest value for the eye.
    mask : ndarray
        (H, W) class indices; class 0 stays clear.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Examples
    --------
    >>> overlay(np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), int)).max().item()
    0
    """
    picture = visible(image)
    for index in range(1, int(mask.max()) + 1):
        inside = mask == index
        rim = inside & ~binary_erosion(inside, border_value=1)
        color = np.array(_color(index, two_classes=False)) / 255
        picture[inside] = 0.7 * picture[inside] + 0.3 * color
        picture[rim] = color
    return np.round(255 * picture).astype(np.uint8)


def visible(image: np.ndarray) -> np.ndarray:
    """Stretch an image (1 or 3, H, W) to the eye's range: (H, W, 3), 0 to 1."""
    low, high = float(image.min()), float(np.quantile(image, 0.999))
    stretched = np.clip((image - low) / max(high - low, 1 / 255), 0, 1)
    return np.array(np.broadcast_to(stretched, (3, *image.shape[1:])).transpose(1, 2, 0), float)


def _color(index: int, two_classes: bool) -> tuple[int, int, int]:
    if two_classes and index == 1:
        return (255, 255, 255)
    if index < len(CLASS_COLORS):
        return CLASS_COLORS[index]
    return (37 * index % 200 + 55, 91 * index % 200 + 55, 151 * index % 200 + 55)
