"""Measure the speed of `fit` against a plain training loop, interleaved in one run.

    python scripts/throughput.py --out book/results/throughput.json

The plain loop trains the same network as one would first write it: eager float32, default memory
layout, Adam, with as many crops lying ready in memory. `fit` has to cut its crops itself.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer

from unet_tutorial import UNet
from unet_tutorial.augmentation import random_crops
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.lesson import setup
from unet_tutorial.results import write_results
from unet_tutorial.training import TrainingConfig, fit

BATCH, CROP = 4, 256


def plain_loop(model: UNet, crops: torch.Tensor, labels: torch.Tensor, steps: int) -> float:
    """Train as one would first write it; return crops per second."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    started = time.perf_counter()
    for _ in range(steps):
        loss = F.cross_entropy(model(crops), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as everybody does, and what makes a GPU wait
    return steps * len(crops) / (time.perf_counter() - started)


def fitted(data: SegmentationData, model: UNet, steps: int, precision: str) -> float:
    """Train with `fit`; return crops per second."""
    config = TrainingConfig(
        steps=steps,
        batch_size=BATCH,
        crop_size=CROP,
        precision=precision,  # type: ignore[arg-type]
    )
    return fit(model, data, config, report=None).crops_per_second


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Times that all are measured in turn.", min=1)] = 5,
) -> None:
    """Compare `fit` in automatic and in full precision with the plain loop."""
    lesson = setup(profile, "membranes")
    smoke = lesson.profile.name == "smoke"
    steps, rounds = (1, 1) if smoke else (12, rounds)
    base = min(lesson.profile.base_channels, 16) if lesson.device.type == "cpu" else 64
    rng = np.random.default_rng(0)
    images = tuple(rng.random((1, 512, 512), dtype=np.float32) for _ in range(4))
    labels = tuple((image[0] > 0.8).astype(np.uint8) for image in images)
    data = SegmentationData(
        name="noise",
        description="noise, for speed only",
        images=images,
        labels=labels,
        class_names=("cell", "membrane"),
        validation_indices=(3,),
        image_names=("0", "1", "2", "3"),
        instances=None,
        mitochondria=None,
        terms="",
        citation="",
    )
    chance = torch.Generator().manual_seed(0)
    crops, truth = random_crops(
        [torch.from_numpy(image).to(lesson.device) for image in images],
        [torch.from_numpy(mask.astype(np.int64)).to(lesson.device) for mask in labels],
        size=CROP,
        number=BATCH,
        generator=chance,
    )

    def network() -> UNet:
        return UNet(1, 2, base_channels=base, norm="batch").to(lesson.device)

    plain_loop(network(), crops, truth, 1)  # the first step of all pays for what is set up once
    fitted(data, network(), 1, "auto")
    rows = []
    for number in range(rounds):
        speeds = {
            "plain": plain_loop(network(), crops, truth, steps),
            "fit": fitted(data, network(), steps, "auto"),
            "fit, float32": fitted(data, network(), steps, "float32"),
        }
        print(
            f"round {number + 1}: "
            + ", ".join(f"{name} {speed:.1f} crops/s" for name, speed in speeds.items())
        )
        rows += [
            {"round": number, "loop": name, "crops_per_second": round(speed, 2)}
            for name, speed in speeds.items()
        ]

    def median(loop: str) -> float:
        return float(np.median([row["crops_per_second"] for row in rows if row["loop"] == loop]))

    ratios = {
        f"{name} / plain": round(median(name) / median("plain"), 2)
        for name in ("fit", "fit, float32")
    }
    print(ratios)
    write_results(
        out,
        rows,
        description="speed of fit against the plain loop, medians of interleaved rounds",
        settings={
            "base_channels": base,
            "batch_size": BATCH,
            "crop_size": CROP,
            "steps": steps,
            **ratios,
        },
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
