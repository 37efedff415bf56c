"""One training loop that a reader can follow, and its settings.

`fit` is the loop of the chapters: read it top to bottom. The rest of the file are the settings
that it takes, the result that it returns, and the checks before it starts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unet_tutorial.augmentation import change_gray, random_crops
from unet_tutorial.checkpoints import (
    CheckpointError,
    read_checkpoint,
    restore_training,
    training_state,
    write_checkpoint,
)
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.devices import Precision, autocast, choose_precision
from unet_tutorial.distributed import Team, join
from unet_tutorial.inference import predict
from unet_tutorial.losses import (
    balanced_class_weights,
    border_weight_map,
    cross_entropy,
    soft_dice_loss,
)
from unet_tutorial.metrics import dice, pixel_error
from unet_tutorial.unet import UNet, check_size


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a training.

    Attributes
    ----------
    steps : int
        Gradient steps. A budget in steps gives the same result everywhere; seconds are measured.
    batch_size : int
        Crops per step; of all processes together, where several train.
    crop_size : int
        Side of the square crops in pixels; a size that the network takes. An unpadded network
        is trained on the pixels that it gives back; the margin is continued by mirroring.
    learning_rate : float
        The highest of the one-cycle schedule, which warms up to it and falls to almost nothing.
    weight_decay : float
        AdamW's decoupled weight decay.
    loss : {"cross-entropy", "cross-entropy+dice"}
        See `unet_tutorial.losses`.
    balanced : bool
        Whether classes count alike in the cross-entropy, however many pixels they have.
    border_weight : float
        The w0 of the paper's weight map for background between close cells; 0 for none. It needs
        ``data.instances``. See `unet_tutorial.losses.border_weight_map`.
    flips_and_turns : bool
        Whether crops are flipped and turned by quarters at random.
    elastic, rotation, gray : float, bool, float
        Bending in pixels, turning by any angle, changes of gray; none by default. See
        `unet_tutorial.augmentation.random_crops`.
    precision : {"auto", "float32", "bfloat16", "float16"}
        Of the convolutions; weights and sums stay in float32. See `unet_tutorial.devices`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    seed : int
        Draws crops, flips, turns and drop-out. The first weights are the model's own.
    validate_every, snapshot_every : int
        Steps between two validation scores, and between two stored predictions of the first
        held-out image; 0 for none.
    checkpoint_every : int
        Steps between two checkpoints, where `fit` is given a file for them; 0 for a tenth of all.
    """

    steps: int = 300
    batch_size: int = 4
    crop_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    loss: Literal["cross-entropy", "cross-entropy+dice"] = "cross-entropy"
    balanced: bool = False
    border_weight: float = 0.0
    flips_and_turns: bool = True
    elastic: float = 0.0
    rotation: bool = False
    gray: float = 0.0
    precision: Precision = "auto"
    device: str = "auto"
    seed: int = 0
    validate_every: int = 0
    snapshot_every: int = 0
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "crop_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer of at least 1: {getattr(self, name)}")
        for name in ("border_weight", "elastic", "gray"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.loss not in ("cross-entropy", "cross-entropy+dice"):
            raise ValueError(
                f"loss must be 'cross-entropy' or 'cross-entropy+dice', got {self.loss!r}"
            )


@dataclass(frozen=True)
class Validation:
    """Scores on the held-out images at one step, each class decided by the largest probability.

    Attributes
    ----------
    step : int
        Steps done when they were taken.
    pixel_error : float
        Share of pixels with the wrong class, 0 to 1.
    dice : float
        Dice of class 1 (membrane), pooled over all held-out pixels, 0 to 1.
    """

    step: int
    pixel_error: float
    dice: float


@dataclass
class TrainingResult:
    """What a training gives back.

    Attributes
    ----------
    model : UNet
        The network that was given, trained, in evaluation mode.
    config : TrainingConfig
        The settings.
    device, precision : str
        Where it ran and how, after ``"auto"`` was settled.
    losses, learning_rates : list of float
        One value a step.
    validations : list of Validation
        Every ``validate_every`` steps and after the last.
    snapshots : list of (int, numpy.ndarray)
        Step, and class probabilities (num_classes, H, W) float16 of the first held-out image.
    seconds : float
        Time spent on steps; validation and snapshots are not counted.
    interrupted : bool
        Whether the training was stopped by hand before its last step.
    """

    model: UNet
    config: TrainingConfig
    device: str
    precision: str
    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    snapshots: list[tuple[int, np.ndarray]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def steps_done(self) -> int:
        """Steps that changed the weights."""
        return len(self.losses)

    @property
    def crops_per_second(self) -> float:
        """Speed, over the whole run."""
        return self.steps_done * self.config.batch_size / max(self.seconds, 1e-9)

    def __repr__(self) -> str:
        loss = f"loss {np.mean(self.losses[-20:]):.3f}" if self.losses else "no step"
        return (
            f"TrainingResult({self.steps_done} of {self.config.steps} steps in "
            f"{self.seconds:.0f} s on {self.device}, {self.precision}; {loss})"
        )


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


def fit(
    model: UNet,
    data: SegmentationData,
    config: TrainingConfig | None = None,
    *,
    report: Callable[[str], Any] | None = print,
    checkpoint: str | Path | None = None,
) -> TrainingResult:
    """Train a network on the training images of a data set.

    Parameters
    ----------
    model : UNet
        Trained in place. It stays on the training device.
    data : SegmentationData
        ``data.training`` is trained on; ``data.validation`` is only ever scored, and may be empty.
    config : TrainingConfig, optional
        Settings; by default ``TrainingConfig()``.
    report : callable, optional
        Gets about ten lines of progress, with loss and speed. None for silence.
    checkpoint : str or Path, optional
        File for the state of the training, written every ``config.checkpoint_every`` steps and at
        its end. If it exists, the training goes on from there, and on a CPU ends with the same
        weights, bit for bit, as if it had never been interrupted.

    Returns
    -------
    TrainingResult
        After a ``KeyboardInterrupt`` too, with what there is by then.

    Raises
    ------
    ValueError
        If the data do not suit the network or the crop size: before anything is trained.
        `unet_tutorial.checkpoints.CheckpointError`, if the checkpoint is that of another training.
    NonFiniteLossError
        If the loss is no longer a number; the message names the step and the likely causes.

    Notes
    -----
    The same seed and first weights on the same machine give the same weights, bit for bit.

    Where a launcher such as `torchrun` has started several processes, they train together, with
    the same crops and the same loss as one process would, so that the weights differ by roundings
    (and by drop-out and batch normalization: see `unet_tutorial.distributed`). Every process gets
    the trained network; only the first one scores, reports and writes.

    Examples
    --------
    >>> import torch
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=4, size=64)
    membranes: ...
    >>> model = UNet(1, 2, base_channels=2, depth=2, norm="batch")
    >>> config = TrainingConfig(steps=3, batch_size=2, crop_size=32)
    >>> result = fit(model, data, config, report=None)
    >>> result.steps_done, len(result.validations)
    (3, 1)
    """
    config = config or TrainingConfig()
    team = join()  # of one process, unless a launcher has started several
    device = team.choose_device(config.device)
    precision = choose_precision(device, config.precision)
    result = TrainingResult(model, config, str(device), precision)
    margin = _margin(model, config.crop_size)
    images, labels = _tensors(data.training, model, config, device, margin)
    weights = _class_weights(data.training, config, device)
    team.check(config.batch_size, config, data.training)
    chance = torch.Generator().manual_seed(config.seed)
    held_out = data.validation
    score = team.first and len(held_out) > 0
    report = report if team.first else None

    model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps + 1
    )
    # float16 has no room for small gradients: they are scaled up, and the step scales them down.
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    losses: list[Tensor] = []
    parts = (model, optimizer, schedule, scaler, chance)
    file = Path(checkpoint) if checkpoint else None

    with _repeatable(config.seed + team.rank, device), team.training(model) as network:
        if file and team.from_first(file.exists):
            _resume(file, parts, result, losses, report, team)
        try:
            for step in range(len(losses) + 1, config.steps + 1):
                started = time.perf_counter()
                crops, truth = random_crops(
                    images,
                    labels,
                    size=config.crop_size,
                    number=config.batch_size,
                    generator=chance,
                    flips_and_turns=config.flips_and_turns,
                    elastic=config.elastic,
                    rotation=config.rotation,
                )
                crops, truth, weight_map = _split(crops, truth, model.in_channels, margin)
                if config.gray:
                    crops = change_gray(crops, config.gray, chance)
                with autocast(device, precision):
                    share = team.share(crops).contiguous(memory_format=torch.channels_last)
                    logits = network(share)
                loss = _loss(team.gather(logits), truth, config, weights, weight_map)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                result.learning_rates.append(float(schedule.get_last_lr()[0]))
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                losses.append(loss.detach())
                last = step == config.steps
                if device.type == "cpu" or last or step % 20 == 0:
                    _stop_if_not_finite(losses, config, precision)  # a GPU waits here
                result.seconds += time.perf_counter() - started

                if score and _due(step, config.validate_every, last):
                    result.validations.append(validate(model, held_out, step))
                if score and config.snapshot_every and _due(step, config.snapshot_every, last):
                    result.snapshots.append(_snapshot(model, held_out, step))
                if report and (last or step % max(1, config.steps // 10) == 0):
                    report(_progress(result, losses, step))
                every = config.checkpoint_every or max(1, config.steps // 10)
                if file and _due(step, every, last):
                    _save(file, parts, result, losses, team)
                team.stop_if_asked()
        except KeyboardInterrupt:
            result.interrupted = True
            if report:
                report(f"stopped by hand after step {len(losses)} of {config.steps}")
    result.losses = [loss.item() for loss in losses]
    del result.learning_rates[len(losses) :]
    model.eval()
    return result


def validate(model: UNet, data: SegmentationData, step: int) -> Validation:
    """Score a network on whole images, each class decided by the largest probability.

    Parameters
    ----------
    model : UNet
        The network.
    data : SegmentationData
        Images to score on; all are used.
    step : int
        Written into the result.

    Returns
    -------
    Validation

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=4, size=64)
    membranes: ...
    >>> scores = validate(UNet(1, 2, base_channels=2, depth=2), data.validation, step=0)
    >>> 0 <= scores.pixel_error <= 1
    True
    """
    predicted = [predict(model, image).argmax(0).ravel() for image in data.images]
    guess = np.concatenate(predicted)
    truth = np.concatenate([labels.ravel() for labels in data.labels])
    return Validation(step, pixel_error(guess, truth), dice(guess == 1, truth == 1))


def _due(step: int, every: int, last: bool) -> bool:
    return last or (every > 0 and step % every == 0)


def _loss(
    logits: Tensor,
    labels: Tensor,
    config: TrainingConfig,
    class_weights: Tensor | None,
    weight_map: Tensor | None,
) -> Tensor:
    loss = cross_entropy(logits, labels, class_weights=class_weights, weight_map=weight_map)
    if config.loss == "cross-entropy+dice":
        loss = loss + soft_dice_loss(logits, labels)
    return loss


def _class_weights(
    data: SegmentationData, config: TrainingConfig, device: torch.device
) -> Tensor | None:
    if not config.balanced:
        return None
    return torch.from_numpy(balanced_class_weights(data.labels, data.num_classes)).to(device)


def _margin(model: UNet, size: int) -> int:
    """Return how many pixels on each side an unpadded network reads but does not answer for."""
    answered, _ = check_size(size, size, depth=model.depth, padding=model.padding)
    return (size - answered) // 2


def _split(
    crops: Tensor, labels: Tensor, channels: int, margin: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Take off the weight map, if it came along as the last channel; cut targets to the answer."""
    inner = slice(margin, labels.shape[-1] - margin)
    weights = crops[:, channels, inner, inner] if crops.shape[1] > channels else None
    return crops[:, :channels], labels[:, inner, inner], weights


def _save(
    file: Path, parts: tuple[Any, ...], result: TrainingResult, losses: list[Tensor], team: Team
) -> None:
    others = team.chance(torch.device(result.device))
    if not team.first:
        return
    tensors, notes = training_state(*parts)
    tensors |= others
    tensors["losses"] = torch.stack(losses).float() if losses else torch.zeros(0)
    for step, probabilities in result.snapshots:
        tensors[f"snapshot.{step}"] = torch.from_numpy(probabilities)
    notes |= {
        "config": asdict(result.config),
        "precision": result.precision,
        "learning_rates": result.learning_rates,
        "validations": [asdict(scores) for scores in result.validations],
        "seconds": result.seconds,
    }
    write_checkpoint(file, tensors, notes)


def _resume(
    file: Path,
    parts: tuple[Any, ...],
    result: TrainingResult,
    losses: list[Tensor],
    report: Callable[[str], Any] | None,
    team: Team,
) -> None:
    tensors, notes = team.from_first(lambda: read_checkpoint(file))
    now = asdict(result.config) | {"precision": result.precision}
    then = notes["config"] | {"precision": notes["precision"]}
    differing = [
        f"{name} {then.get(name)!r}, now {now[name]!r}"
        for name in now
        if name not in ("device", "checkpoint_every") and then.get(name) != now[name]
    ]
    if differing:
        raise CheckpointError(
            f"{file} belongs to a training with other settings ({'; '.join(differing)}): go on "
            "with the same settings, or give another file"
        )
    restore_training(tensors, notes, *parts)
    team.restore_chance(tensors)
    device = next(parts[0].parameters()).device
    losses.extend(tensors["losses"].to(device))
    result.learning_rates.extend(notes["learning_rates"])
    result.validations.extend(Validation(**scores) for scores in notes["validations"])
    snapshots = [name for name in tensors if name.startswith("snapshot.")]
    result.snapshots.extend(
        sorted((int(name.split(".")[1]), tensors[name].numpy()) for name in snapshots)
    )
    result.seconds = notes["seconds"]
    if report:
        report(f"going on after step {len(losses)} of {result.config.steps}, from {file}")


def _tensors(
    data: SegmentationData,
    model: UNet,
    config: TrainingConfig,
    device: torch.device,
    margin: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """Check that the data suit the network, and put them on the device, once."""
    if not len(data):
        raise ValueError(f"{data.name} has no image to train on: hold out fewer")
    if data.in_channels != model.in_channels:
        raise ValueError(
            f"{data.name} has images of {data.in_channels} channels, the network takes "
            f"{model.in_channels}: build it with UNet({data.in_channels}, ...)"
        )
    for name, image, labels in zip(data.image_names, data.images, data.labels, strict=True):
        if not np.isfinite(image).all():
            raise ValueError(f"image {name} holds values that are not finite (NaN or infinity)")
        if labels.min() < 0 or labels.max() >= model.num_classes:
            raise ValueError(
                f"the labels of {name} go from {labels.min()} to {labels.max()}, the network has "
                f"{model.num_classes} classes: labels are class indices, 0 to "
                f"{model.num_classes - 1} (a mask of 0 and 255 becomes labels with mask > 0)"
            )
    images = list(data.images)
    if config.border_weight:
        if data.instances is None:
            raise ValueError(
                f"border_weight needs a number for every cell, and {data.name} has none: fill "
                "data.instances, for instance with skimage.measure.label(labels == 0)"
            )
        # It travels as one more channel, so that it is cut, turned and bent with its image.
        images = [
            np.concatenate([image, border_weight_map(cells, w0=config.border_weight)[None]])
            for image, cells in zip(images, data.instances, strict=True)
        ]
    return (
        [torch.from_numpy(_mirrored(image, margin)).to(device) for image in images],
        [
            torch.from_numpy(_mirrored(mask.astype(np.int64), margin)).to(device)
            for mask in data.labels
        ],
    )


def _mirrored(pixels: np.ndarray, margin: int) -> np.ndarray:
    """Continue an image by mirroring (paper, section 2), so that its border is trained too."""
    sides = [(0, 0)] * (pixels.ndim - 2) + [(margin, margin)] * 2
    return np.ascontiguousarray(np.pad(pixels, sides, mode="reflect"))


@contextlib.contextmanager
def _repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Let the seed decide drop-out and the GPU's choice of kernels; leave the rest of chance be."""
    gpus = [torch.cuda.current_device()] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield


def _stop_if_not_finite(losses: list[Tensor], config: TrainingConfig, precision: str) -> None:
    if torch.isfinite(losses[-1]):
        return
    finite = torch.isfinite(torch.stack(losses)).cpu()
    step = int((~finite).nonzero()[0]) + 1
    causes = [f"a learning rate that is too high (it is {config.learning_rate:g}: try a tenth)"]
    if precision == "float16":
        causes.append("float16, which overflows above 65504 (try precision='float32')")
    causes.append("no normalization between the convolutions (try norm='batch')")
    raise NonFiniteLossError(
        f"the loss became {losses[step - 1].item()} at step {step} of {config.steps}. Likely "
        f"causes: {'; '.join(causes)}. Images and labels were checked before the first step."
    )


def _snapshot(model: UNet, data: SegmentationData, step: int) -> tuple[int, np.ndarray]:
    return step, predict(model, data.images[0]).astype(np.float16)


def _progress(result: TrainingResult, losses: list[Tensor], step: int) -> str:
    recent = torch.stack(losses[-20:]).mean().item()
    speed = step * result.config.batch_size / max(result.seconds, 1e-9)
    line = f"step {step:4d}/{result.config.steps}  loss {recent:.3f}  {speed:5.1f} crops/s"
    if result.validations and result.validations[-1].step == step:
        scores = result.validations[-1]
        line += f"  held out: pixel error {scores.pixel_error:.3f}, Dice {scores.dice:.3f}"
    return line
