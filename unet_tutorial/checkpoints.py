"""The state of a training in one file: written whole or not at all, read without running code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unet_tutorial._files import write_whole

FORMAT = "inside-unet training 1"


class CheckpointError(ValueError):
    """A file is no checkpoint, or one of another training."""


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write tensors and plain values into one safetensors file.

    The file is written beside its place, brought to the disk, and then renamed: whoever reads it,
    at whatever moment this process dies, finds the old state or the new one, and nothing in
    between.

    Parameters
    ----------
    path : Path
        The file; it is replaced. Its folder is made if it is missing.
    tensors : mapping of str to Tensor
        On any device.
    notes : mapping of str to plain values
        Whatever JSON can hold; numbers come back exactly.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "state.safetensors"
    ...     write_checkpoint(file, {"x": torch.ones(2)}, {"step": 3})
    ...     read_checkpoint(file)
    ({'x': tensor([1., 1.])}, {'step': 3})
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Contiguous: a file has one order of its values, memory may have another (channels last).
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"format": FORMAT, "notes": json.dumps(notes)}
    write_whole(path, lambda half: save_file(plain, half, metadata=about), sync=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_checkpoint` has written.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to Tensor, dict
        Tensors on the CPU, and the notes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} is a safetensors file, but no checkpoint of this package "
                    f"({FORMAT!r}): it says {about.get('format')!r}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}") from error
    return tensors, json.loads(about["notes"])


def training_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    scaler: torch.amp.GradScaler,
    chance: torch.Generator,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Collect all that decides how a training goes on.

    Parameters
    ----------
    model, optimizer, schedule, scaler
        As they are after a step.
    chance : torch.Generator
        The source of chance for crops; PyTorch's own, which draws drop-out, is added.

    Returns
    -------
    dict of str to Tensor, dict
        As `write_checkpoint` takes them.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
    tensors["chance.crops"] = chance.get_state()
    tensors["chance.torch"] = torch.get_rng_state()
    if next(model.parameters()).device.type == "cuda":
        tensors["chance.cuda"] = torch.cuda.get_rng_state()
    notes = {
        "param_groups": state["param_groups"],
        "schedule": schedule.state_dict(),
        "scaler": scaler.state_dict(),
    }
    return tensors, notes


def restore_training(
    tensors: Mapping[str, Tensor],
    notes: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    scaler: torch.amp.GradScaler,
    chance: torch.Generator,
) -> None:
    """Put back what `training_state` has collected.

    Raises
    ------
    CheckpointError
        If the weights are those of another network.
    """
    weights = _under("model.", tensors)
    own = model.state_dict()
    if {name: tensor.shape for name, tensor in weights.items()} != {
        name: tensor.shape for name, tensor in own.items()
    }:
        raise CheckpointError(
            "the checkpoint holds the weights of another network: build it with the same options"
        )
    model.load_state_dict(weights)
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        # In memory a weight and its averages must lie in the same order: fused steps rely on it.
        moved = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = moved
    optimizer.load_state_dict({"state": state, "param_groups": notes["param_groups"]})
    schedule.load_state_dict(notes["schedule"])
    scaler.load_state_dict(notes["scaler"])
    chance.set_state(tensors["chance.crops"])
    torch.set_rng_state(tensors["chance.torch"])
    if "chance.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["chance.cuda"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
