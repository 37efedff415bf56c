"""Measure what precision costs in use: size, deviation, scores and seconds, on the CPU.

    python scripts/precision.py --out book/results/precision.json

One small network, trained here so that its float32 weights are known, or one that is given, answers
for the held-out slices in float32 and in what is cheaper: weights rounded to two bytes, arithmetic
in bfloat16, ONNX Runtime, and its 8-bit integers (the range of every map taken anew for each image,
or stored, from slices of the training). Seconds are those from a slice to its probabilities,
taken in turn in one process; before each measured pass the same way runs once, so that no threads
of another one are still waiting for work.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import onnxruntime
import torch
import typer
from onnxruntime import quantization
from safetensors.torch import save_file
from scipy.special import softmax

from unet_tutorial import UNet
from unet_tutorial.board import ISBI_RECIPE
from unet_tutorial.devices import Precision
from unet_tutorial.export import (
    fold_batch_norm,
    load_network,
    read_network,
    write_network,
    write_onnx,
)
from unet_tutorial.inference import predict
from unet_tutorial.lesson import Lesson, setup_for_results
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import write_results

STEPS = {"cpu": 540, "gpu": 1500, "smoke": 2}
BASE_CHANNELS = 8  # as the networks that run in the page
CALIBRATION = 4  # slices


class Way(NamedTuple):
    """A way to use the network."""

    weights: str
    arithmetic: str
    runtime: str
    file: Path
    predict: Callable[[np.ndarray], np.ndarray]  # (1, H, W) to probabilities (classes, H, W)


def train(lesson: Lesson) -> UNet:
    """Train a small network by the recipe of the whole trainings."""
    smoke = lesson.profile.name == "smoke"
    recipe = ISBI_RECIPE | ({"crop_size": 64} if smoke else {})
    model: UNet = lesson.build(base_channels=BASE_CHANNELS)
    lesson.train(model, steps=STEPS[lesson.profile.name], validate_every=0, **recipe)
    return model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def with_torch(model: UNet, precision: Precision) -> Callable[[np.ndarray], np.ndarray]:
    """Predict the whole slice with PyTorch."""
    return lambda image: predict(model, image, precision=precision, tile=None)


def with_onnx_runtime(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Predict the whole slice with ONNX Runtime, on as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda image: softmax(session.run(None, {"image": image[None]})[0][0], axis=0)


class Slices(quantization.CalibrationDataReader):
    """Hands slices to ONNX Runtime, which looks at the range of every map."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Give the next one, None at the end."""
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def prepare(model: UNet, images: Sequence[np.ndarray], folder: Path) -> list[Way]:
    """Write the network in all precisions; float32 in PyTorch comes first."""
    whole, half, brain = (folder / f"{name}.safetensors" for name in ("whole", "half", "brain"))
    write_network(whole, model, precision="float32")
    write_network(half, model)
    rounded = {name: value.bfloat16() for name, value in model.state_dict().items()}
    save_file(rounded, brain)
    in_bfloat16 = fold_batch_norm(model)
    in_bfloat16.load_state_dict(rounded)

    graph, dynamic, static = (folder / f"{name}.onnx" for name in ("whole", "dynamic", "static"))
    write_onnx(graph, model)
    quantization.quantize_dynamic(graph, dynamic, weight_type=quantization.QuantType.QUInt8)
    quantization.quantize_static(
        graph,
        static,
        Slices(images),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    ways = [
        Way("float32", "float32", "PyTorch", whole, with_torch(model, "float32")),
        Way("float16", "float32", "PyTorch", half, with_torch(read_network(half)[0], "float32")),
        Way("bfloat16", "float32", "PyTorch", brain, with_torch(in_bfloat16, "float32")),
        Way("float32", "bfloat16", "PyTorch", whole, with_torch(model, "bfloat16")),
        Way("float32", "float32", "ONNX Runtime", graph, with_onnx_runtime(graph)),
        Way("int8", "int8, ranges anew", "ONNX Runtime", dynamic, with_onnx_runtime(dynamic)),
        Way("int8", "int8, ranges stored", "ONNX Runtime", static, with_onnx_runtime(static)),
    ]
    if all(torch.equal(value, value.half().float()) for value in model.state_dict().values()):
        print("the weights are float16 already: what that costs cannot be seen in this network")
        del ways[1]
    return ways


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[str, typer.Option(help="isbi2012, membranes or auto.")] = "auto",
    network: Annotated[
        str, typer.Option(help="Name or file of a network; by default one is trained.")
    ] = "",
    rounds: Annotated[int, typer.Option(help="Slices that are timed.", min=1)] = 20,
) -> None:
    """Compare precisions of one network on the held-out slices."""
    lesson = setup_for_results(profile, dataset)
    model = fold_batch_norm(load_network(network)[0] if network else train(lesson))
    held_out = lesson.data.validation
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime advises on the root logger
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        ways = prepare(model, lesson.data.training.images[:CALIBRATION], Path(name))
        seconds: list[list[float]] = [[] for _ in ways]
        for number in range(1 if lesson.profile.name == "smoke" else rounds):
            image = held_out.images[number % len(held_out)]
            for way, taken in zip(ways, seconds, strict=True):
                way.predict(image)
                started = time.perf_counter()
                way.predict(image)
                taken.append(time.perf_counter() - started)
        reference = [ways[0].predict(image) for image in held_out.images]
        for way, taken in zip(ways, seconds, strict=True):
            found = [way.predict(image) for image in held_out.images]
            pairs = list(zip(found, reference, strict=True))
            changed = [(a.argmax(0) != b.argmax(0)).mean() for a, b in pairs]
            scores = evaluate([one[1] for one in found], held_out.labels)
            rows.append(
                {
                    "dataset": lesson.data.name,
                    "weights": way.weights,
                    "arithmetic": way.arithmetic,
                    "runtime": way.runtime,
                    "kilobytes": round(way.file.stat().st_size / 1000, 1),
                    "largest_deviation": float(max(np.abs(a - b).max() for a, b in pairs)),
                    "changed_share": float(np.mean(changed)),
                    "pixel_error": scores.pixel_error,
                    "dice": scores.dice,
                    "v_rand": scores.v_rand,
                    "seconds": round(float(np.median(taken)), 4),
                    "fastest": round(min(taken), 4),
                    "slowest": round(max(taken), 4),
                }
            )
            print(rows[-1], flush=True)
    write_results(
        out,
        rows,
        description="one network on the held-out slices in several precisions: size of its file, "
        "largest deviation of a probability from float32 in PyTorch, share of the pixels whose "
        "class changes, scores, and the median of the seconds that one slice takes on the CPU",
        settings={
            "profile": lesson.profile.name,
            "network": network or {"steps": STEPS[lesson.profile.name], **ISBI_RECIPE},
            "base_channels": model.options["base_channels"],
            "slice": list(held_out.images[0].shape[1:]),
            "rounds": rounds,
            "threads": torch.get_num_threads(),
            "calibration_slices": CALIBRATION,
            "onnxruntime": onnxruntime.__version__,
        },
        device=torch.device("cpu"),
    )


if __name__ == "__main__":
    typer.run(main)
