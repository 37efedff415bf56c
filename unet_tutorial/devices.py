"""Where a network runs, and in which precision: chosen from what the machine has."""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> torch.device:
    """Take the device that was asked for, or the fastest that is there.

    Parameters
    ----------
    device : str
        ``"auto"`` takes an NVIDIA or AMD GPU (``cuda``), then an Apple GPU (``mps``), then the
        CPU. Anything else goes to `torch.device`.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If a GPU is asked for that is not there.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(device)
    missing = (chosen.type == "cuda" and not torch.cuda.is_available()) or (
        chosen.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ValueError(f"device {device!r} is not available here: use 'cpu' or 'auto'")
    return chosen


def choose_precision(
    device: torch.device, precision: Precision = "auto"
) -> Literal["float32", "bfloat16", "float16"]:
    """Take the precision that was asked for, or the fastest that the device computes well.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: bfloat16 on GPUs of compute capability 8 and above (older ones only emulate
        it) and on CPUs with bfloat16 arithmetic (AMX, AVX512-BF16); float16 on the tensor cores
        of capability 7, such as a T4; else float32.

    Returns
    -------
    {"float32", "bfloat16", "float16"}

    Raises
    ------
    ValueError
        If the precision is unknown.

    Examples
    --------
    >>> choose_precision(torch.device("cpu"), "float32")
    'float32'
    """
    if precision != "auto":
        if precision not in _DTYPES:
            known = ", ".join(map(repr, _DTYPES))
            raise ValueError(f"precision must be 'auto' or one of {known}, got {precision!r}")
        return precision
    if device.type == "cuda":
        generation = torch.cuda.get_device_capability(device)[0]
        return "bfloat16" if generation >= 8 else "float16" if generation == 7 else "float32"
    if device.type == "cpu" and _cpu_bfloat16_units():
        return "bfloat16"
    return "float32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Run convolutions in the given precision; sums that need it stay in float32.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    precision : {"float32", "bfloat16", "float16"}
        As `choose_precision` returns it; with float32 nothing changes.

    Examples
    --------
    >>> layer = torch.nn.Conv2d(1, 1, 3)
    >>> with autocast(torch.device("cpu"), "bfloat16"):
    ...     layer(torch.zeros(1, 1, 8, 8)).dtype
    torch.bfloat16
    """
    enabled = precision != "float32"
    return torch.autocast(device.type, _DTYPES[precision], enabled=enabled)


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Name the hardware and the versions that a measurement depends on.

    Parameters
    ----------
    device : torch.device, optional
        Where the network ran; by default what ``"auto"`` would take.

    Returns
    -------
    dict
        ``device``, ``processor``, ``cores``, ``system``, ``python`` and ``torch``; nothing that
        names the machine itself.

    Examples
    --------
    >>> sorted(describe_machine(torch.device("cpu")))
    ['cores', 'device', 'processor', 'python', 'system', 'torch']
    """
    device = device or choose_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "processor": _processor_name(),
        "cores": usable_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def usable_cores() -> int:
    """Count the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_bfloat16_units() -> list[str]:
    """Name the units of this CPU that compute in bfloat16."""
    checks = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    # The checks are private and not in every version of torch: without them, no such unit.
    return [unit for unit, check in checks.items() if getattr(torch.cpu, check, bool)()]


def _processor_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return " with ".join([line.split(":", 1)[1].strip(), *_cpu_bfloat16_units()])
    return platform.processor() or platform.machine()
