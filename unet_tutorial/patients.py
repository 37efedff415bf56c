"""Five trainings that end in a useless mask, each with one fault, and their repaired twins.

Explained in chapter 6, where the reader finds the faults; to find them yourself, read that first.
A patient and its twin (``patient_a``, ``cured_a``) differ in a single line. `train` is the loop of
all of them, and nothing is wrong with it. What can be seen in files alone is found by
`unet_tutorial.clinic`.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from torch import Tensor

from unet_tutorial.augmentation import random_crops
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.lesson import Lesson, source_of
from unet_tutorial.losses import cross_entropy
from unet_tutorial.plots import show_image
from unet_tutorial.unet import UNet

# Large enough for every symptom and every cure, and seconds on two cores.
STEPS, SMOKE_STEPS = 80, 4
SHOWN = 192  # side in pixels of the part that is shown


@dataclass(frozen=True, eq=False)
class Case:
    """What the owner of a network can look at.

    Attributes
    ----------
    losses : list of float
        One value a step.
    labels : numpy.ndarray
        (H, W), of the first held-out image, as the loss would be given them.
    logits : numpy.ndarray
        (channels, H, W) float32: what the network puts out for that image.
    picture : numpy.ndarray
        (H, W) uint8, 0 (black) to 255 (white): the mask as it was saved.
    """

    losses: list[float]
    labels: np.ndarray
    logits: np.ndarray
    picture: np.ndarray


# --- what all of them share -----------------------------------------------------------------------


def train(
    network: UNet,
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    *,
    crop_size: int = 96,
    steps: int = STEPS,
    seed: int = 0,
) -> list[float]:
    """Train in the plainest way that works.

    Parameters
    ----------
    network : UNet
        Trained in place.
    images, labels : sequence of Tensor
        (C, H, W) and (H, W) each, on the network's device.
    loss_function : callable
        Takes logits (N, channels, H, W) and labels (N, H, W).
    crop_size, steps, seed : int
        Side of the crops in pixels, gradient steps, and what draws the crops.

    Returns
    -------
    list of float
        The loss of every step.

    Examples
    --------
    >>> network = UNet(1, 2, base_channels=2, depth=2)
    >>> images, labels = [torch.rand(1, 32, 32)], [torch.zeros(32, 32, dtype=torch.long)]
    >>> len(train(network, images, labels, cross_entropy, crop_size=16, steps=2))
    2
    """
    chance = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps + 1)
    losses = []
    network.train()
    for _ in range(steps):
        crops, truth = random_crops(images, labels, size=crop_size, number=8, generator=chance)
        loss = loss_function(network(crops), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses


def open_files(lesson: Lesson) -> tuple[list[Tensor], list[np.ndarray]]:
    """Return the images, and their masks as they would come out of PNG files.

    Parameters
    ----------
    lesson : Lesson
        Data and device.

    Returns
    -------
    list of Tensor, list of numpy.ndarray
        (C, H, W) float32, 0 to 1, on the lesson's device; (H, W) uint8, 255 is membrane. The last
        of each is the first held-out image, cut to what is shown; the others are the training's.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> images, masks = open_files(setup("smoke", "membranes"))
    membranes: ...
    >>> len(images), np.unique(masks[0]).tolist()
    (5, [0, 255])
    """
    return _tensors(lesson), [255 * mask.astype(np.uint8) for mask in _labels(lesson.data)]


def open_junctions(lesson: Lesson) -> tuple[list[Tensor], list[Tensor]]:
    """Return the images, and where in them three cells meet.

    Parameters
    ----------
    lesson : Lesson
        Data and device.

    Returns
    -------
    list of Tensor, list of Tensor
        Images as in `open_files`; (H, W) int64, 1 in small disks about the `junctions`, on the
        lesson's device.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> images, labels = open_junctions(setup("smoke", "membranes"))
    membranes: ...
    >>> labels[0].unique().tolist()
    [0, 1]
    """
    return _tensors(lesson), [mark.to(lesson.device) for mark in _all_junctions(lesson.data)]


@functools.lru_cache(maxsize=1)  # patient, twin and page ask for the same, which takes seconds
def _all_junctions(data: SegmentationData) -> list[Tensor]:
    return [torch.from_numpy(junctions(labels)) for labels in _labels(data)]


def _tensors(lesson: Lesson) -> list[Tensor]:
    shown = lesson.data.validation.images[0][:, :SHOWN, :SHOWN]
    images = [*lesson.data.training.images, np.ascontiguousarray(shown)]
    return [torch.from_numpy(image).to(lesson.device) for image in images]


def _labels(data: SegmentationData) -> list[np.ndarray]:
    return [*data.training.labels, data.validation.labels[0][:SHOWN, :SHOWN]]


def junctions(labels: np.ndarray, *, reach: float = 6.0, radius: float = 2.0) -> np.ndarray:
    """Mark where three cells or more meet: a class with hardly a hundredth of the pixels.

    Parameters
    ----------
    labels : numpy.ndarray
        (H, W), 0 cell and 1 membrane.
    reach : float
        How near, in pixels, a pixel must be to each of the three.
    radius : float
        Of the disk that is marked, in pixels.

    Returns
    -------
    numpy.ndarray
        (H, W) int64, 1 at a junction, 0 elsewhere.

    Examples
    --------
    >>> walls = np.zeros((31, 31), int)
    >>> walls[15] = walls[:15, 15] = 1  # like a T
    >>> np.argwhere(junctions(walls, radius=1)).mean(axis=0).tolist()
    [15.0, 15.0]
    """
    cells, _ = ndimage.label(np.asarray(labels) == 0)
    near = np.zeros(cells.shape, np.uint8)
    total = np.zeros(cells.shape)
    margin = int(np.ceil(reach))
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        around = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
        distance = ndimage.distance_transform_edt(cells[around] != number)
        near[around] += distance <= reach
        total[around] += np.minimum(distance, reach)
    places, count = ndimage.label(near >= 3)
    # The pixel of each place that is nearest to all its cells together.
    centers = ndimage.minimum_position(total - reach * near, places, range(1, count + 1))
    marks = np.ones(cells.shape, bool)
    for center in centers:
        marks[center] = False
    return (ndimage.distance_transform_edt(marks) <= radius).astype(np.int64) * bool(centers)


def small_network(lesson: Lesson, num_classes: int) -> UNet:
    """Build a U-Net that is trained in seconds, always with the same first weights.

    Parameters
    ----------
    lesson : Lesson
        Data, device, seed, profile.
    num_classes : int
        Channels of its logits.

    Returns
    -------
    UNet

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> small_network(setup("smoke", "membranes"), num_classes=1).num_classes
    membranes: ...
    1
    """
    torch.manual_seed(lesson.seed)
    width = 4 if lesson.profile.name == "smoke" else 8
    network = UNet(lesson.data.in_channels, num_classes, base_channels=width, depth=3, norm="batch")
    return network.to(lesson.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def look(network: UNet, image: Tensor) -> np.ndarray:
    """Return the logits (channels, H, W) of one image (C, H, W), as an array.

    Examples
    --------
    >>> look(UNet(1, 2, base_channels=2, depth=2), torch.zeros(1, 16, 16)).shape
    (2, 16, 16)
    """
    with torch.inference_mode():
        return network(image[None])[0].cpu().numpy()


def steps_for(lesson: Lesson) -> int:
    """Return how long the patients train: 80 steps, or 4 only to see that every cell runs.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> steps_for(setup("smoke", "membranes"))
    membranes: ...
    4
    """
    return SMOKE_STEPS if lesson.profile.name == "smoke" else STEPS


# --- A ------------------------------------------------------------------------------------------


def patient_a(lesson: Lesson, steps: int = STEPS) -> Case:
    """Take masks as the files hold them, and a loss that takes such masks.

    Parameters
    ----------
    lesson : Lesson
        Data, device, seed; with profile ``smoke`` the network is narrower.
    steps : int
        Gradient steps; 80 show every symptom and every cure.

    Returns
    -------
    Case
        As of all patients: what its owner can look at.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> case = patient_a(setup("smoke", "membranes"), steps=1)
    membranes: ...
    >>> np.unique(case.labels).tolist(), case.logits.shape, case.picture.dtype.name
    ([0.0, 255.0], (1, 128, 128), 'uint8')
    """
    images, masks = open_files(lesson)
    targets = [torch.from_numpy(mask).to(lesson.device).float() for mask in masks]
    network = small_network(lesson, num_classes=1)

    def loss_function(logits: Tensor, truth: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits[:, 0], truth)

    losses = train(network, images[:-1], targets[:-1], loss_function, steps=steps)
    logits = look(network, images[-1])
    picture = 255 * (logits[0] > 0).astype(np.uint8)
    return Case(losses, targets[-1].cpu().numpy(), logits, picture)


def cured_a(lesson: Lesson, steps: int = STEPS) -> Case:
    """Do what `patient_a` does, but for one line."""
    images, masks = open_files(lesson)
    targets = [torch.from_numpy(mask > 0).to(lesson.device).float() for mask in masks]
    network = small_network(lesson, num_classes=1)

    def loss_function(logits: Tensor, truth: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits[:, 0], truth)

    losses = train(network, images[:-1], targets[:-1], loss_function, steps=steps)
    logits = look(network, images[-1])
    picture = 255 * (logits[0] > 0).astype(np.uint8)
    return Case(losses, targets[-1].cpu().numpy(), logits, picture)


# --- B and C --------------------------------------------------------------------------------------


def train_for_b_and_c(lesson: Lesson, steps: int = STEPS) -> Case:
    """Train the network of two patients; nothing is wrong with it.

    Parameters
    ----------
    lesson : Lesson
        Data, device, seed.
    steps : int
        Gradient steps.

    Returns
    -------
    Case
        Without a picture yet: that is what `patient_b` and `patient_c` add.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> trained = train_for_b_and_c(setup("smoke", "membranes"), steps=1)
    membranes: ...
    >>> bool(patient_b(trained).picture.max() <= 1)
    True
    """
    images, masks = open_files(lesson)
    labels = [torch.from_numpy(mask > 0).to(lesson.device).long() for mask in masks]
    network = small_network(lesson, num_classes=2)
    losses = train(network, images[:-1], labels[:-1], F.cross_entropy, steps=steps)
    logits = look(network, images[-1])
    nothing_yet = np.zeros(logits.shape[1:], np.uint8)
    return Case(losses, labels[-1].cpu().numpy(), logits, nothing_yet)


def patient_b(trained: Case) -> Case:
    """Save the mask of `train_for_b_and_c`."""
    index = trained.logits.argmax(axis=0)
    picture = index.astype(np.uint8)
    return replace(trained, picture=picture)


def cured_b(trained: Case) -> Case:
    """Do what `patient_b` does, but for one line."""
    index = trained.logits.argmax(axis=0)
    picture = 255 * index.astype(np.uint8)
    return replace(trained, picture=picture)


def patient_c(trained: Case) -> Case:
    """Save the mask of `train_for_b_and_c`, from black to white as a plotting library would."""
    mask = trained.logits[0]
    picture = np.interp(mask, (mask.min(), mask.max()), (0, 255)).astype(np.uint8)
    return replace(trained, picture=picture)


def cured_c(trained: Case) -> Case:
    """Do what `patient_c` does, but for one line."""
    mask = trained.logits.argmax(axis=0)
    picture = np.interp(mask, (mask.min(), mask.max()), (0, 255)).astype(np.uint8)
    return replace(trained, picture=picture)


# --- D ------------------------------------------------------------------------------------------


def patient_d(lesson: Lesson, steps: int = STEPS) -> Case:
    """Look for the places where three cells meet."""
    images, labels = open_junctions(lesson)
    network = small_network(lesson, num_classes=2)

    def loss_function(logits: Tensor, truth: Tensor) -> Tensor:
        return cross_entropy(logits, truth)

    losses = train(network, images[:-1], labels[:-1], loss_function, steps=steps)
    logits = look(network, images[-1])
    picture = 255 * logits.argmax(axis=0).astype(np.uint8)
    return Case(losses, labels[-1].cpu().numpy(), logits, picture)


def cured_d(lesson: Lesson, steps: int = STEPS) -> Case:
    """Do what `patient_d` does, but for one line."""
    images, labels = open_junctions(lesson)
    network = small_network(lesson, num_classes=2)

    def loss_function(logits: Tensor, truth: Tensor) -> Tensor:
        return cross_entropy(logits, truth, class_weights=logits.new_tensor([1.0, 50.0]))

    losses = train(network, images[:-1], labels[:-1], loss_function, steps=steps)
    logits = look(network, images[-1])
    picture = 255 * logits.argmax(axis=0).astype(np.uint8)
    return Case(losses, labels[-1].cpu().numpy(), logits, picture)


# --- E ------------------------------------------------------------------------------------------


def patient_e(lesson: Lesson, steps: int = STEPS) -> Case:
    """Train with a Dice loss of one's own, which saves memory."""
    images, masks = open_files(lesson)
    labels = [torch.from_numpy(mask > 0).to(lesson.device).long() for mask in masks]
    network = small_network(lesson, num_classes=2)

    def loss_function(logits: Tensor, truth: Tensor) -> Tensor:
        probabilities = logits.half().softmax(dim=1)
        target = F.one_hot(truth, 2).movedim(-1, 1)
        overlap = (probabilities * target).sum(dim=(0, 2, 3))
        total = (probabilities + target).sum(dim=(0, 2, 3))
        return ((total - 2 * overlap) / total).mean()

    losses = train(network, images[:-1], labels[:-1], loss_function, crop_size=128, steps=steps)
    logits = look(network, images[-1])
    picture = 255 * logits.argmax(axis=0).astype(np.uint8)
    return Case(losses, labels[-1].cpu().numpy(), logits, picture)


def cured_e(lesson: Lesson, steps: int = STEPS) -> Case:
    """Do what `patient_e` does, but for one line."""
    images, masks = open_files(lesson)
    labels = [torch.from_numpy(mask > 0).to(lesson.device).long() for mask in masks]
    network = small_network(lesson, num_classes=2)

    def loss_function(logits: Tensor, truth: Tensor) -> Tensor:
        probabilities = logits.float().softmax(dim=1)
        target = F.one_hot(truth, 2).movedim(-1, 1)
        overlap = (probabilities * target).sum(dim=(0, 2, 3))
        total = (probabilities + target).sum(dim=(0, 2, 3))
        return ((total - 2 * overlap) / total).mean()

    losses = train(network, images[:-1], labels[:-1], loss_function, crop_size=128, steps=steps)
    logits = look(network, images[-1])
    picture = 255 * logits.argmax(axis=0).astype(np.uint8)
    return Case(losses, labels[-1].cpu().numpy(), logits, picture)


# --- what the page shows of them ----------------------------------------------------------------


def three_questions(case: Case) -> None:
    """Print which values the labels, the logits and the saved picture have.

    Parameters
    ----------
    case : Case
        Of a patient or its twin.

    Examples
    --------
    >>> case = Case([0.7], np.array([[0, 1]]), np.zeros((2, 1, 2), np.float32),
    ...             np.array([[0, 255]], np.uint8))
    >>> three_questions(case)
    labels:  0, 1
    logits:  2 channels, from 0 to 0
    picture: 0, 255
    """
    print("labels: ", _few(case.labels))
    low, high = case.logits.min(), case.logits.max()  # NaN if one of them is NaN
    channels = f"{len(case.logits)} channel" + "s" * (len(case.logits) > 1)
    print(f"logits:  {channels}, from {low:.3g} to {high:.3g}")
    print("picture:", _few(case.picture))


def _few(values: np.ndarray) -> str:
    found = np.unique(values)
    if len(found) > 4:
        return f"{len(found)} different values, from {found[0]:g} to {found[-1]:g}"
    return ", ".join(f"{value:g}" for value in found)


def show_difference(patient: Callable[..., Any], cured: Callable[..., Any]) -> None:
    """Print the lines in which two functions differ, their names and docstrings aside.

    Parameters
    ----------
    patient, cured : function
        What is taken out is marked −, what is put in its place +.

    Examples
    --------
    >>> show_difference(patient_b, cured_b)
    − picture = index.astype(np.uint8)
    + picture = 255 * index.astype(np.uint8)
    """
    old, new = (source_of(function).splitlines()[1:] for function in (patient, cured))
    for line in difflib.ndiff(old, new):
        if line[0] in "-+":
            print(line[0].replace("-", "\N{MINUS SIGN}"), line[2:].strip())


def plot_cases(
    cases: Mapping[str, Case], *, pictures: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """Show the saved masks in one row, and the losses beside them.

    Parameters
    ----------
    cases : mapping of str to Case
        By the name to write above. Cases of one training have no loss of their own to show.
    pictures : mapping of str to numpy.ndarray, optional
        Others, shown first: (H, W), 0 (black) to 1 (white).

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> case = Case([0.7, float("nan")], np.zeros((4, 4)), np.zeros((2, 4, 4)),
    ...             np.zeros((4, 4), np.uint8))
    >>> figure = plot_cases({"patient": case}, pictures={"label": np.ones((4, 4))})
    >>> [axes.get_title() for axes in figure.axes]
    ['label', 'patient', 'loss']
    """
    shown = dict(pictures or {}) | {name: case.picture / 255 for name, case in cases.items()}
    curves = {id(case.losses): (name, case.losses) for name, case in cases.items()}
    drawn = len(curves) == len(cases)  # one loss of several cases tells nothing about them
    widths = [1.0] * len(shown) + [1.5] * drawn
    figure, axes = plt.subplots(
        1,
        len(widths),
        figsize=(1.6 * sum(widths), 1.9),
        width_ratios=widths,
        layout="constrained",
        squeeze=False,
    )
    for panel, (name, picture) in zip(axes[0], shown.items(), strict=False):
        show_image(panel, picture, name)
        panel.axis("on")
        panel.set(xticks=[], yticks=[])  # only a frame: white masks on a white page
        panel.spines[:].set(visible=True, color="#8a8f98", linewidth=0.6)
    if drawn:
        panel = axes[0, -1]
        for name, losses in curves.values():
            lost = np.count_nonzero(np.isnan(losses))
            label = f"{name}: NaN at {lost} of {len(losses)} steps" if lost else name
            panel.plot(np.arange(len(losses)) + 1, losses, label=label)
        if all(np.isnan(losses).all() for _, losses in curves.values()):
            panel.set(xticks=[], yticks=[])
        panel.set_title("loss")
        if len(cases) > 1 or not np.isfinite(next(iter(cases.values())).losses).all():
            panel.legend(fontsize=7.5)
    return figure


def write_folder(folder: str | Path, patient: str, data: SegmentationData) -> None:
    """Write what a patient leaves on disk: images, and masks like the ones of its fault.

    Nothing is trained. The masks are those that the patients A, D and E train on; B and C train
    on the same as A, and here get what they would save if their networks made no error.

    Parameters
    ----------
    folder : str or Path
        Gets ``images/`` and ``masks/``.
    patient : {"A", "B", "C", "D", "E"}
        Whose.
    data : SegmentationData
        Gray images, with membrane as class 1.

    Raises
    ------
    ValueError
        If there is no such patient.

    Examples
    --------
    >>> import tempfile
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=2, size=64)
    membranes: ...
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_folder(folder, "B", data)
    ...     np.unique(np.asarray(Image.open(f"{folder}/masks/0.png"))).tolist()
    [0, 1]
    """
    if patient not in _MASKS:
        raise ValueError(f"patient must be one of {', '.join(_MASKS)}, got {patient!r}")
    for part in ("images", "masks"):
        (Path(folder) / part).mkdir(parents=True, exist_ok=True)
    for number, (image, labels) in enumerate(zip(data.images, data.labels, strict=True)):
        Image.fromarray((255 * image[0]).astype(np.uint8)).save(f"{folder}/images/{number}.png")
        mask = _MASKS[patient](labels).astype(np.uint8)
        Image.fromarray(mask).save(f"{folder}/masks/{number}.png")


# Logits of a network that makes no error would still fade from membrane to cell.
_MASKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "A": lambda labels: 255 * (labels == 1),
    "B": lambda labels: labels == 1,
    "C": lambda labels: 255 * ndimage.gaussian_filter((labels == 0).astype(float), 2),
    "D": junctions,
    "E": lambda labels: 255 * (labels == 1),
}
