"""Measure prediction in tiles: seconds, memory, and how far it is from the whole image.

    pip install --no-deps monai   # what it is compared with; its rows are missing without it
    python scripts/tiles.py --out book/results/tiles.json

The tiles of `unet_tutorial.inference.predict` and MONAI's `sliding_window_inference` (windows of
512 pixels that overlap by a quarter, one at a time) run the same trained network in the same
precision. MONAI gets its windows as it cuts them, and once in the memory layout that `predict`
uses. The unpadded network has the weights of the padded one. Times are taken in turn in one
process, memory in a process for each.
"""

from __future__ import annotations

import functools
import importlib
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from unet_tutorial import UNet
from unet_tutorial.devices import Precision, autocast, choose_device, choose_precision
from unet_tutorial.inference import predict, tile_plan
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.results import write_results
from unet_tutorial.speed import monai_version, peak_memory, printed_elsewhere

WINDOW, OVERLAP = 512, 0.25
OURS = ("tiles", "tiles, unpadded network")
MONAI = ("monai, gaussian", "monai, gaussian, channels last", "monai, constant, channels last")


def run(
    method: str, models: dict[str, UNet], image: np.ndarray, precision: Precision = "auto"
) -> np.ndarray:
    """Predict an image (H, W) by one of the methods; return (classes, H, W)."""
    if method in OURS:
        return predict(models[method], image, precision=precision)
    monai = importlib.import_module("monai.inferers")
    model = models["tiles"]
    device = next(model.parameters()).device

    def window(pixels: Tensor) -> Tensor:
        if method.endswith("channels last"):
            pixels = pixels.to(memory_format=torch.channels_last)
        return model(pixels).float().softmax(dim=1)

    with torch.inference_mode(), autocast(device, choose_precision(device, precision)):
        found = monai.sliding_window_inference(
            torch.from_numpy(image)[None, None],
            (WINDOW, WINDOW),
            sw_batch_size=1,
            predictor=window,
            overlap=OVERLAP,
            mode="gaussian" if "gaussian" in method else "constant",
            sw_device=device,
            device=torch.device("cpu"),
        )
    return found[0].numpy()


def build(base: int, device: torch.device) -> dict[str, UNet]:
    """Build the padded and the unpadded network, with the same weights."""
    torch.manual_seed(0)
    padded = UNet(1, 2, base_channels=base, norm="batch")
    unpadded = UNet(1, 2, base_channels=base, norm="batch", padding="valid")
    unpadded.load_state_dict(padded.state_dict())
    models = dict(zip(OURS, (padded, unpadded), strict=True))
    return {name: model.to(device).eval() for name, model in models.items()}


def memory_of(method: str, size: int, base: int) -> float:
    """Run a method once in this process; return MB at its peak above networks and image."""
    device = choose_device()
    models = build(base, device)
    image = np.random.default_rng(0).random((size, size), dtype=np.float32)
    if method in MONAI:
        importlib.import_module("monai.inferers")  # before, as the package is
    return peak_memory(lambda: run(method, models, image), device)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Times that all are measured in turn.", min=1)] = 3,
    memory: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Compare tiles with MONAI's sliding window."""
    if memory:
        method, size_text, base_text = memory.split(";")
        print(memory_of(method, int(size_text), int(base_text)))
        return
    lesson = setup_for_results(profile, "membranes")
    smoke = lesson.profile.name == "smoke"
    size, whole, rounds = (1100, 1100, 1) if smoke else (4096, 2048, rounds)
    base = min(lesson.profile.base_channels, 16) if lesson.device.type == "cpu" else 64
    monai = monai_version()
    methods: tuple[str, ...] = OURS + (MONAI if monai else ())

    trained = lesson.build(UNet, base_channels=base)
    lesson.train(trained, validate_every=0)
    models = build(base, lesson.device)
    for model in models.values():
        model.load_state_dict(trained.state_dict())
    micrograph = lesson.data.images[-1][0]
    after = size - micrograph.shape[0], size - micrograph.shape[1]
    image = np.pad(micrograph, [(0, more) for more in after], mode="reflect")

    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for method in methods:
        run(method, models, image[:whole, :whole])  # what is set up once is not measured
    for number in range(rounds):
        for method in methods:
            started = time.perf_counter()
            run(method, models, image)
            seconds[method].append(round(time.perf_counter() - started, 3))
        print(f"round {number + 1}: " + ", ".join(f"{m} {seconds[m][-1]:.2f} s" for m in methods))

    @functools.cache
    def whole_image(network: str, precision: Precision) -> np.ndarray:
        return predict(models[network], image[:whole, :whole], precision=precision, tile=None)

    rows = []
    for method in methods:
        row = {
            "method": method,
            "seconds": float(np.median(seconds[method])),
            "fastest": min(seconds[method]),
            "slowest": max(seconds[method]),
            "peak_megabytes": round(
                printed_elsewhere(__file__, "--out", "-", "--memory", f"{method};{size};{base}")
            ),
            "deviation_measured_on": f"{whole}x{whole}",
        }
        network = method if method in OURS else "tiles"
        precisions: tuple[Precision, ...] = ("auto", "float32")
        for precision in precisions:
            expected = whole_image(network, precision)
            found = run(method, models, image[:whole, :whole], precision)
            row[f"largest_deviation_{precision}"] = float(np.abs(found - expected).max())
        print(row)
        rows.append(row)
    plan = tile_plan(models["tiles"], (size, size))[0]
    write_results(
        out,
        rows,
        description="a large image predicted in tiles: seconds (median of interleaved rounds), "
        "peak memory above networks and image, largest deviation of a probability from the "
        "whole image in one pass; the latter on a part of the image that fits into memory",
        settings={
            "size": size,
            "base_channels": base,
            "norm": "batch",
            "precision": choose_precision(lesson.device),
            "rounds": rounds,
            "tile": [
                plan.input_rows[1] - plan.input_rows[0],
                plan.input_columns[1] - plan.input_columns[0],
            ],
            "monai": monai,
            "window": WINDOW,
            "overlap": OVERLAP,
        },
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
