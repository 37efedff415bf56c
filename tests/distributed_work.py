"""What test_distributed lets other processes do; apart, since they need nothing else of it."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from unet_tutorial import UNet
from unet_tutorial.cli import app
from unet_tutorial.datasets import load
from unet_tutorial.distributed import join
from unet_tutorial.training import TrainingConfig, fit

CONFIG = TrainingConfig(
    steps=8,
    batch_size=4,
    crop_size=32,
    device="cpu",
    precision="float32",
    elastic=3.0,
    rotation=True,
    gray=0.2,
    validate_every=4,
    snapshot_every=4,
    checkpoint_every=1,
)
# What is no mean over the processes' own losses: quotients of sums, over pixels that weigh
# differently.
SETTINGS: dict[str, tuple[TrainingConfig, dict[str, Any]]] = {
    "plain": (CONFIG, {}),
    "dice and class weights": (
        dataclasses.replace(CONFIG, loss="cross-entropy+dice", balanced=True),
        {"upsampling": "bilinear"},
    ),
    "weight map": (dataclasses.replace(CONFIG, border_weight=10.0), {"skip": "none"}),
    "unpadded": (dataclasses.replace(CONFIG, crop_size=44), {"padding": "valid"}),
}


def network(seed: int = 0, **options: Any) -> UNet:
    torch.manual_seed(seed)
    return UNet(1, 2, **{"base_channels": 4, "depth": 2, **options})


def everything(folder: Path, killed: Path, run: Path, images: Path) -> None:
    """Train in all ways, and write down what this process has seen."""
    torch.set_num_threads(1)
    data = load("membranes", n_images=4, size=64)
    rank = join().rank
    seen: dict[str, Any] = {"rank": rank}
    for name, (config, options) in SETTINGS.items():
        lines: list[str] = []
        # Other first weights in each process: those of the first one count.
        result = fit(network(seed=rank, **options), data, config, report=lines.append)
        seen[name] = outcome(result) | {"lines": lines}

    def failing(do: Any) -> str:
        try:
            do()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    short = dataclasses.replace(CONFIG, checkpoint_every=0)
    odd = dataclasses.replace(CONFIG, batch_size=3)
    own_seed = dataclasses.replace(CONFIG, seed=rank)
    own_images = load("membranes", n_images=4, size=64, seed=rank)
    seen["odd"] = failing(lambda: fit(network(), data, odd, report=None))
    seen["own seed"] = failing(lambda: fit(network(), data, own_seed, report=None))
    seen["own images"] = failing(lambda: fit(network(), own_images, CONFIG, report=None))
    broken = network()
    if rank == 1:
        at_step(broken, 3, lambda output: output * float("nan"))
    seen["not finite"] = failing(lambda: fit(broken, data, short, report=None))

    # Interrupted in one process, and resumed: drop-out and batch normalization included.
    options = {"norm": "batch", "dropout": 0.3}
    seen["undisturbed"] = outcome(fit(network(**options), data, CONFIG, report=None))
    file = folder / f"state{rank}"  # the second process's own file must not count
    stopped = network(**options)
    if rank == 1:
        at_step(stopped, 5, lambda output: os.kill(os.getpid(), signal.SIGINT))
    seen["stopped"] = outcome(fit(stopped, data, CONFIG, report=None, checkpoint=file))
    again = network(seed=3, **options)
    seen["resumed"] = outcome(fit(again, data, CONFIG, report=None, checkpoint=file))
    seen["after death"] = outcome(fit(network(), data, CONFIG, report=None, checkpoint=killed))

    # What the command line says: one error of the first process, one of every process.
    for name, source, out in (("finished", images, run), ("missing", folder / "no", folder / "o")):
        said = CliRunner().invoke(app, ["train", str(source), "--out", str(out)])
        seen[name] = (said.exit_code, said.output)
    torch.save(seen, folder / f"seen{rank}")


def at_step(model: UNet, step: int, do: Any) -> None:
    calls: list[int] = []

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        calls.append(module.training)
        if module.training and sum(calls) == step:
            return do(output)

    model.register_forward_hook(hook)


def outcome(result: Any) -> dict[str, Any]:
    return {
        "weights": result.model.state_dict(),
        "losses": result.losses,
        "validations": [scores.step for scores in result.validations],
        "snapshots": [step for step, _ in result.snapshots],
        "interrupted": result.interrupted,
        "training": result.model.training,
    }
