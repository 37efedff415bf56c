"""From the plain loop to the fast one, one change at a time (chapter 6).

`plain_loop` is how one first writes a training. `ladder` lists the changes that make it fast, and
`climb` is the same loop with any of them. `scripts/ladder.py` measures them; `show_ladder` prints
what it found. `unet_tutorial.training.fit` is the last rung.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial.augmentation import random_crops
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.devices import _DTYPES, Precision, autocast, choose_precision
from unet_tutorial.results import read_results
from unet_tutorial.shapes import trace_shapes

MEGABYTE = 2**20


def plain_loop(
    model: nn.Module,
    data: SegmentationData,
    *,
    batch_size: int = 4,
    crop_size: int = 256,
    seed: int = 0,
) -> Iterator[float]:
    """Train as one would first write it: crop by crop in NumPy, float32, Adam.

    Parameters
    ----------
    model : nn.Module
        Trained in place, on its device: images (N, C, H, W) to logits (N, num_classes, H, W).
    data : SegmentationData
        All its images are trained on.
    batch_size, crop_size, seed : int
        As in `unet_tutorial.training.TrainingConfig`.

    Yields
    ------
    float
        The loss of each step, without end: take as many steps as you like.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=4, size=64)
    membranes: ...
    >>> loop = plain_loop(UNet(1, 2, base_channels=2, depth=2), data.training, crop_size=32)
    >>> len([loss for loss, step in zip(loop, range(3))])
    3
    """
    device = next(model.parameters()).device
    chance = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    while True:
        pairs = [numpy_crop(data, crop_size, chance) for _ in range(batch_size)]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).to(device)
        labels = torch.from_numpy(np.stack([label for _, label in pairs])).to(device)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def numpy_crop(
    data: SegmentationData, size: int, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop at a random place of a random image, flipped and turned at random.

    Parameters
    ----------
    data : SegmentationData
        Where from.
    size : int
        Side in pixels; no image may be smaller.
    chance : numpy.random.Generator
        Source of chance.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        Image (C, size, size) float32 and labels (size, size) int64.

    Examples
    --------
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=4, size=64)
    membranes: ...
    >>> image, labels = numpy_crop(data, 32, np.random.default_rng(0))
    >>> image.shape, labels.shape
    ((1, 32, 32), (32, 32))
    """
    chosen = chance.integers(len(data))
    image, labels = data.images[chosen], data.labels[chosen]
    top, left = (chance.integers(length - size + 1) for length in labels.shape)
    window = (..., slice(top, top + size), slice(left, left + size))
    turns, step = int(chance.integers(4)), 1 - 2 * int(chance.integers(2))
    crop = np.rot90(image[window], turns, axes=(-2, -1))[..., ::step]
    mark = np.rot90(labels[window], turns, axes=(-2, -1))[..., ::step]
    return np.ascontiguousarray(crop), mark.astype(np.int64)


@dataclass(frozen=True)
class Rung:
    """A way to train; the defaults are those of `plain_loop`.

    Attributes
    ----------
    name : str
        What is new on this rung.
    batch_size : int
        Crops per step.
    channels_last : bool
        Whether the channels of a pixel lie side by side in memory.
    precision : {"float32", "bfloat16", "float16"}
        Of the convolutions.
    fused : bool
        AdamW that updates all weights in one go, instead of Adam.
    on_device : bool
        Whether images wait on the device and are cut, flipped and turned there, and the loss is
        left there too instead of being waited for at each step.
    compiled : bool
        Whether `torch.compile` writes kernels for this network and this size.
    """

    name: str
    batch_size: int = 4
    channels_last: bool = False
    precision: Precision = "float32"
    fused: bool = False
    on_device: bool = False
    compiled: bool = False


def ladder(device: torch.device, *, batch_size: int = 4) -> list[Rung]:
    """List the rungs from the plain loop upward, each with one change more.

    Parameters
    ----------
    device : torch.device
        Where it will be trained: a GPU keeps the batch four times as large, which fills it. On a
        CPU the next rungs go back to the small one: twice the batch is no faster there.
    batch_size : int
        Of the plain loop.

    Returns
    -------
    list of Rung

    Examples
    --------
    >>> for rung in ladder(torch.device("cpu")):
    ...     print(rung.batch_size, rung.name)
    4 plain loop
    8 larger batch
    4 channels last
    4 half precision
    4 fused AdamW
    4 data on the device
    4 compiled
    """
    plain = Rung("plain loop", batch_size)
    larger = replace(
        plain, name="larger batch", batch_size=batch_size * (2 if device.type == "cpu" else 4)
    )
    rungs = [plain, larger]
    if device.type == "cpu":
        rungs.append(replace(plain, name="channels last", channels_last=True))
    else:
        rungs.append(replace(larger, name="channels last", channels_last=True))
    for name, change in {
        "half precision": {"precision": choose_precision(device)},
        "fused AdamW": {"fused": True},
        "data on the device": {"on_device": True},
        "compiled": {"compiled": True},
    }.items():
        rungs.append(replace(rungs[-1], name=name, **change))  # type: ignore[arg-type]
    return rungs


def climb(
    model: nn.Module,
    data: SegmentationData,
    rung: Rung,
    *,
    crop_size: int = 256,
    seed: int = 0,
) -> Iterator[float | Tensor]:
    """Train as a rung says; on the lowest it is `plain_loop`, number for number.

    Parameters
    ----------
    model : nn.Module
        Trained in place, on its device.
    data : SegmentationData
        All its images are trained on.
    rung : Rung
        From `ladder`.
    crop_size, seed : int
        As in `unet_tutorial.training.TrainingConfig`.

    Yields
    ------
    float or Tensor
        The loss of each step, without end; a tensor that nobody has waited for where
        ``rung.on_device``.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=4, size=64)
    membranes: ...
    >>> rung = ladder(torch.device("cpu"))[-2]
    >>> loop = climb(UNet(1, 2, base_channels=2, depth=2), data.training, rung, crop_size=32)
    >>> len([loss for loss, step in zip(loop, range(3))])
    3
    """
    device = next(model.parameters()).device
    layout = torch.channels_last if rung.channels_last else torch.contiguous_format
    model.to(memory_format=layout).train()  # type: ignore[call-overload]
    kind = torch.optim.AdamW if rung.fused else torch.optim.Adam
    fused = True if rung.fused and device.type != "mps" else None  # None: PyTorch's own choice
    optimizer = kind(model.parameters(), lr=1e-3, fused=fused)
    # float16 has no room for small gradients: they are scaled up, and the step scales them down.
    scaler = torch.amp.GradScaler(device.type, enabled=rung.precision == "float16")
    network = torch.compile(model) if rung.compiled else model
    crops = _from_device if rung.on_device else _from_numpy
    for images, labels in crops(data, rung.batch_size, crop_size, seed, device):
        with autocast(device, rung.precision):
            logits = network(images.contiguous(memory_format=layout))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        yield loss.detach() if rung.on_device else loss.item()


def _from_numpy(
    data: SegmentationData, number: int, size: int, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    chance = np.random.default_rng(seed)
    while True:
        pairs = [numpy_crop(data, size, chance) for _ in range(number)]
        images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        yield images.to(device), labels.to(device)


def _from_device(
    data: SegmentationData, number: int, size: int, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    chance = torch.Generator().manual_seed(seed)
    images = [torch.from_numpy(image).to(device) for image in data.images]
    labels = [torch.from_numpy(mask.astype(np.int64)).to(device) for mask in data.labels]
    while True:
        yield random_crops(images, labels, size=size, number=number, generator=chance)


def crops_per_second(
    loop: Iterable[Any], steps: int, batch_size: int, device: torch.device
) -> float:
    """Time some steps of a loop; on a GPU, until the last of them has really been computed.

    Parameters
    ----------
    loop : iterable
        From `plain_loop` or `climb`; its first step of all should be behind it.
    steps : int
        How many.
    batch_size : int
        Crops per step.
    device : torch.device
        Where it trains.

    Returns
    -------
    float

    Examples
    --------
    >>> crops_per_second(iter(range(10)), 5, 4, torch.device("cpu")) > 0
    True
    """
    _wait(device)
    started = time.perf_counter()
    for _ in islice(loop, steps):
        pass
    _wait(device)
    return steps * batch_size / (time.perf_counter() - started)


def training_flops(model: nn.Module, size: tuple[int, int]) -> int:
    """Count the arithmetic of one image in training: forward once, backward twice.

    The backward pass computes two things of the size of the forward pass, the gradient of the
    weights and that of the maps. A multiply-add counts as two operations, as in the figures that
    makers of processors give; normalization, ReLU and the optimizer are left out.

    Parameters
    ----------
    model : UNet
        The network.
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    int
        Floating-point operations.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> with torch.device("meta"):
    ...     model = UNet(1, 2)
    >>> f"{training_flops(model, (256, 256)) / 1e9:.0f} billion"
    '289 billion'
    """
    return 2 * 3 * trace_shapes(model, size).multiply_adds


def matrix_rate(device: torch.device, precision: str, *, side: int = 0) -> float:
    """Measure how fast a device multiplies large matrices: what a network could hope for.

    Parameters
    ----------
    device : torch.device
        Which.
    precision : {"float32", "bfloat16", "float16"}
        Of the matrices.
    side : int
        Rows and columns; 0 for 2048 on a CPU and 8192 on a GPU.

    Returns
    -------
    float
        Floating-point operations per second, of the fastest of ten products.

    Examples
    --------
    >>> matrix_rate(torch.device("cpu"), "float32", side=64) > 0
    True
    """
    side = side or (2048 if device.type == "cpu" else 8192)
    dtype = _DTYPES[precision]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds[2:])  # the first ones choose their kernels


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """Run something and measure its memory at the peak, above what was there before.

    Parameters
    ----------
    run : callable
        What to run. On a CPU, in a process that has used little memory before: what was freed
        hides what is taken again.
    device : torch.device
        Whose memory.

    Returns
    -------
    float
        MB (2^20 bytes).

    Examples
    --------
    >>> peak_memory(lambda: torch.ones(3), torch.device("cpu")) >= 0
    True
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / MEGABYTE
    before_kilobytes = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before_kilobytes) / 1024


def monai_version() -> str | None:
    """Look whether MONAI is there to compare with; where it is not, say how to get it.

    Returns
    -------
    str or None
        Its version.

    Examples
    --------
    >>> import contextlib, io
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     version = monai_version()
    >>> version is None or version[0].isdigit()
    True
    """
    try:
        return metadata.version("monai")
    except metadata.PackageNotFoundError:
        print(
            "MONAI is not installed, so nothing is compared with it. To get it: "
            "pip install --no-deps monai"
        )
        return None


def printed_elsewhere(script: str, *options: str) -> float:
    """Run a script in a process of its own, and return the number that it prints last.

    Parameters
    ----------
    script : str
        File of the script.
    *options : str
        What it is called with.

    Returns
    -------
    float

    Raises
    ------
    subprocess.CalledProcessError
        If it fails.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "measure.py"
    ...     _ = file.write_text("import sys; print(sys.argv[1]); print(2.5)")
    ...     printed_elsewhere(str(file), "--memory")
    2.5
    """
    command = [sys.executable, script, *options]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(said.splitlines()[-1])


def show_ladder(base_channels: int, rows: Sequence[str] = (), *, results: str = "ladder") -> None:
    """Print the stored ladder of one width.

    Parameters
    ----------
    base_channels : int
        Width of the first stage that was measured.
    rows : sequence of str
        Names of the rungs to print; by default all.
    results : str
        File in ``book/results``; ``"gpu/ladder"`` where one was measured on a GPU.

    Raises
    ------
    ValueError
        If that width was not measured.

    Examples
    --------
    >>> show_ladder(16, ["plain loop"])
    cpu, ...
    base 16 ...
    plain loop ...
    """
    stored = read_results(results)
    chosen = [row for row in stored["rows"] if row["base_channels"] == base_channels]
    if not chosen:
        measured = sorted({row["base_channels"] for row in stored["rows"]})
        raise ValueError(f"{results} has base channels {measured}, not {base_channels}")
    machine, settings = stored["machine"], stored["settings"]
    precision = settings["precision"]
    rate = settings["tera_operations_per_second"][precision]
    print(f"{machine['device']}, {machine['processor']}, {settings['threads']} threads: large")
    print(f"matrices in {precision} at {rate:.2f} trillion operations a second")
    heads = ("crops/s", "× plain", "peak MB", "of rate")
    print(f"{f'base {base_channels}':34}", *(f"{head:>9}" for head in heads))
    for row in chosen:
        if rows and row["name"] not in rows:
            continue
        if row["crops_per_second"] is None:
            print(f"{row['name']:34} {row['note']}")
            continue
        print(
            f"{row['name']:34} {row['crops_per_second']:9.2f} {row['times_plain']:9.2f} "
            f"{row['peak_megabytes']:9,.0f} {row['share_of_matrix_rate']:9.0%}"
        )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _resident(line: str) -> float:
    """Read the memory of this process in KB: now (VmRSS) or at its peak (VmHWM)."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux: the peak stands for both
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            1024 if sys.platform == "darwin" else 1
        )
    return float(text.partition(f"{line}:")[2].split()[0])
