"""How wide the networks of the chapters are and how long they train, by what the machine has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unet_tutorial.devices import choose_precision
from unet_tutorial.training import TrainingConfig


@dataclass(frozen=True)
class Profile:
    """How large the networks of a chapter are, and how long they train.

    Attributes
    ----------
    name : str
        ``"cpu"``, ``"gpu"``, ``"small"`` or ``"smoke"``.
    base_channels : int
        Width of the first stage.
    config : TrainingConfig
        Steps, batch, crops.
    """

    name: str
    base_channels: int
    config: TrainingConfig


PROFILES: dict[str, Profile] = {
    # Two CPU cores: half a minute a network.
    "cpu": Profile("cpu", 16, TrainingConfig(steps=220, batch_size=8, crop_size=128)),
    # The paper's width: seconds on a data-centre GPU, a minute or two on Colab's.
    "gpu": Profile("gpu", 64, TrainingConfig(steps=400, batch_size=16, crop_size=256)),
    # CPUs that compute only float32 fast, as most laptops do: as many seconds, half as wide; a
    # narrower network learns as much in as many steps if they are larger.
    "small": Profile(
        "small", 8, TrainingConfig(steps=220, batch_size=6, crop_size=128, learning_rate=6e-3)
    ),
    # Only to see that every cell runs; nothing is learned.
    "smoke": Profile("smoke", 4, TrainingConfig(steps=4, batch_size=2, crop_size=64)),
}


def fitting_profile(device: torch.device) -> Profile:
    """Choose how much a device trains in half a minute.

    Parameters
    ----------
    device : torch.device
        Where the network trains.

    Returns
    -------
    Profile
        ``"gpu"``; ``"cpu"`` for a CPU with bfloat16 arithmetic, ``"small"`` for one without.

    Examples
    --------
    >>> fitting_profile(torch.device("mps")).name
    'gpu'
    """
    if device.type != "cpu":
        return PROFILES["gpu"]
    return PROFILES["small" if choose_precision(device) == "float32" else "cpu"]
