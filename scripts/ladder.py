"""Measure the ladder of chapter 6, from the plain loop to `fit`, rung beside rung in one run.

    pip install --no-deps monai   # what it is compared with; its rows are missing without it
    python scripts/ladder.py --out book/results/ladder.json

The plain loop trains as one would first write it: eager float32, default memory layout, Adam,
crops cut, flipped and turned in NumPy one by one, every loss waited for. Each rung changes one
thing more; the last is `unet_tutorial.training.fit`. MONAI's BasicUNet has the same widths and
normalization (its highest up-convolution keeps its channels: a little more arithmetic) and trains
in the plain loop and in the fastest way that is not compiled. Speeds are medians of rounds in
which all are measured in turn; memory is that of two steps in a process of its own.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from unet_tutorial import UNet
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.devices import choose_device, choose_precision
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.results import write_results
from unet_tutorial.speed import (
    Rung,
    climb,
    crops_per_second,
    ladder,
    matrix_rate,
    monai_version,
    peak_memory,
    printed_elsewhere,
    training_flops,
)
from unet_tutorial.training import TrainingConfig, fit

BATCH = 4
# Steps that are timed in a round: a step of the wide network takes a CPU seconds.
PROFILES: dict[str, dict[str, Any]] = {
    "cpu": {"crop": 256, "rounds": 3, "steps": {16: 3, 64: 1}},
    "gpu": {"crop": 256, "rounds": 5, "steps": {16: 30, 64: 30}},
    "smoke": {"crop": 64, "rounds": 1, "steps": {4: 1}},
}


@dataclass(frozen=True)
class Entry:
    """Something that trains, and how its speed is taken."""

    rung: Rung
    network: str = "unet"
    fitted: bool = False


def entries(device: torch.device, profile: str) -> dict[str, Entry | str]:
    """List what is measured by name; where it cannot be, why."""
    rungs = ladder(device, batch_size=BATCH)
    best = rungs[-2]
    found: dict[str, Entry | str] = {rung.name: Entry(rung) for rung in rungs}
    if best.precision == "float32":
        found["half precision"] = "not measured: this device computes nothing faster than float32"
    missing = "a trial" if profile == "smoke" else why_not_compiled(device)
    if missing:
        found["compiled"] = f"not measured: {missing}"
    found["fit"] = Entry(best, fitted=True)
    if best.precision != "float32":
        found["fit, float32"] = Entry(replace(best, precision="float32"), fitted=True)
    if monai_version():
        found["MONAI BasicUNet, plain loop"] = Entry(rungs[0], "monai")
        found["MONAI BasicUNet, data on the device"] = Entry(best, "monai")
    return found


def why_not_compiled(device: torch.device) -> str:
    """Try `torch.compile` on next to nothing; return the reason if it fails."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:
        return f"torch.compile says: {str(error).strip().splitlines()[0][:90]}"
    return ""


def build(network: str, base: int, device: torch.device) -> nn.Module:
    """Build a network with batch normalization."""
    torch.manual_seed(0)
    if network == "unet":
        return UNet(1, 2, base_channels=base, norm="batch").to(device)
    widths = (base, 2 * base, 4 * base, 8 * base, 16 * base, base)
    monai = importlib.import_module("monai.networks.nets")
    return monai.BasicUNet(2, 1, 2, features=widths, act="relu", norm="batch").to(device)


def noise() -> SegmentationData:
    """Make images to train on: the speed is that of any others."""
    rng = np.random.default_rng(0)
    images = tuple(rng.random((1, 512, 512), dtype=np.float32) for _ in range(4))
    return SegmentationData(
        name="noise",
        description="noise, for speed only",
        images=images,
        labels=tuple((image[0] > 0.8).astype(np.uint8) for image in images),
        class_names=("cell", "membrane"),
        validation_indices=(),
        image_names=("0", "1", "2", "3"),
    )


def runner(entry: Entry, base: int, crop: int, device: torch.device) -> Callable[[int], float]:
    """Prepare a training; return what takes some steps of it and gives crops per second."""
    model, data = build(entry.network, base, device), noise()
    if entry.fitted:
        return functools.partial(fitted, model, data, entry.rung, crop, device)
    loop = climb(model, data, entry.rung, crop_size=crop)
    return lambda steps: crops_per_second(loop, steps, entry.rung.batch_size, device)


def fitted(
    model: Any, data: SegmentationData, rung: Rung, crop: int, device: torch.device, steps: int
) -> float:
    """Train with `fit`; return crops per second."""
    config = TrainingConfig(
        steps=steps,
        batch_size=rung.batch_size,
        crop_size=crop,
        precision=rung.precision,
        device=str(device),
    )
    return fit(model, data, config, report=None).crops_per_second


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Rounds; 0 for the profile's.", min=0)] = 0,
    memory: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Compare all rungs, `fit` and MONAI's network."""
    device = choose_device()
    if memory:
        name, base_text = memory.split(";")
        crop = PROFILES[profile]["crop"]
        one = Entry(ladder(device)[-1]) if name == "compiled" else entries(device, "smoke")[name]
        assert isinstance(one, Entry)  # only what was measured is asked for
        # What PyTorch loads once, at the first step of all, is no part of any rung's memory.
        warm_up = replace(one, rung=replace(one.rung, compiled=False))
        runner(warm_up, 4, 64, device)(2)
        print(peak_memory(lambda: runner(one, int(base_text), crop, device)(2), device))
        return
    lesson = setup_for_results(profile, "membranes")
    profile = lesson.profile.name
    sizes = PROFILES[profile]
    rounds = rounds or sizes["rounds"]
    precision = choose_precision(device)
    all_known = entries(device, profile)
    rates: dict[str, list[float]] = {name: [] for name in dict.fromkeys(["float32", precision])}
    rows = []
    for base, steps in sizes["steps"].items():
        runners: dict[str, Callable[[int], float]] = {}
        first: dict[str, float] = {}
        known = dict(all_known)
        if device.type == "cpu" and base > 16:  # half a minute a step
            known["larger batch"] = "not measured at this width on a CPU"
        for name, entry in known.items():
            if isinstance(entry, str):
                continue
            started = time.perf_counter()
            runners[name] = runner(entry, base, sizes["crop"], device)
            runners[name](1)  # the first step pays for what is set up once
            first[name] = time.perf_counter() - started
            if name == "compiled":
                print(f"base {base}: first step compiled in {first[name]:.0f} s")
        speeds: dict[str, list[float]] = {name: [] for name in runners}
        for number in range(rounds):
            for name, run in runners.items():
                speeds[name].append(run(steps))
            for dtype, found in rates.items():
                found.append(matrix_rate(device, dtype))
            print(
                f"base {base}, round {number + 1}: "
                + ", ".join(f"{name} {speeds[name][-1]:.2f}" for name in runners)
            )
        del runners
        for name, entry in known.items():
            row = {"base_channels": base, "name": name}
            if isinstance(entry, str):
                rows.append(row | {"crops_per_second": None, "note": entry})
                continue
            speed = float(np.median(speeds[name]))
            with torch.device("meta"):
                flops = training_flops(UNet(1, 2, base_channels=base), (sizes["crop"],) * 2)
            rows.append(
                row
                | {
                    "batch_size": entry.rung.batch_size,
                    "precision": entry.rung.precision,
                    "crops_per_second": round(speed, 3),
                    "slowest": round(min(speeds[name]), 3),
                    "fastest": round(max(speeds[name]), 3),
                    "times_plain": round(speed / float(np.median(speeds["plain loop"])), 3),
                    "seconds_until_first_step": round(first[name], 1),
                    "peak_megabytes": round(
                        printed_elsewhere(
                            __file__,
                            "--out",
                            "-",
                            "--profile",
                            profile,
                            "--memory",
                            f"{name};{base}",
                        )
                    ),
                    "share_of_matrix_rate": round(
                        speed * flops / float(np.median(rates[precision])), 4
                    ),
                    "note": "",
                }
            )
            print(rows[-1])
    write_results(
        out,
        rows,
        description="training speed from the plain loop to fit, medians of interleaved rounds; "
        "peak memory with network and optimizer; share of the measured rate of large matrix "
        "products in the precision of fit, counted with the U-Net's arithmetic for all",
        settings={
            "crop_size": sizes["crop"],
            "norm": "batch",
            "rounds": rounds,
            "steps_per_round": {str(base): steps for base, steps in sizes["steps"].items()},
            "precision": precision,
            "threads": torch.get_num_threads(),
            "tera_operations_per_second": {
                name: round(float(np.median(found)) / 1e12, 3) for name, found in rates.items()
            },
            "monai": monai_version(),
        },
        device=device,
    )


if __name__ == "__main__":
    typer.run(main)
