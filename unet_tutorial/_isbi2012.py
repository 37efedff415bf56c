"""ISBI 2012 on this machine: found, verified, downloaded.

A file counts only if its SHA-256 is the one in ``_isbi2012_registry.txt``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
import requests
from skimage.io import imread
from tqdm import tqdm

from unet_tutorial._download import CONNECT_SECONDS, READ_SECONDS

# One commit, so that the bytes behind an address never change.
BASE_URL = (
    "https://raw.githubusercontent.com/zhixuhao/unet/"
    "b45af4d458437d8281cc218a07fd4380818ece4a/data/membrane/"
)
FOLDER = "isbi2012"
VARIABLE = "UNET_TUTORIAL_DATA"
TERMS = (
    "Free to use for generating or testing non-commercial image segmentation software; cite both "
    "publications."
)
CITATION = (
    "Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation algorithms "
    "for connectomics, Frontiers in Neuroanatomy 9:142, doi:10.3389/fnana.2015.00142. "
    "Cardona et al. (2010), An integrated micro- and macroarchitectural analysis of the Drosophila "
    "brain by computer-assisted serial section electron microscopy, PLoS Biology 8(10):e1000502, "
    "doi:10.1371/journal.pbio.1000502."
)

RETRIES = 2
WORKERS = 4


class DataNotFoundError(FileNotFoundError):
    """ISBI 2012 is not on this machine and could not be downloaded."""


class NoNetworkError(DataNotFoundError):
    """ISBI 2012 is not on this machine, and its server cannot be reached."""


class CorruptDataError(ValueError):
    """Files of ISBI 2012 are on this machine, but they are not what they should be."""


class Place(NamedTuple):
    """A folder that may hold ``isbi2012/``, and how to call it in front of people."""

    folder: Path
    said: str
    ours: bool  # downloads may land here


class Stack(NamedTuple):
    """The 30 slices, decoded, and where they were found."""

    images: tuple[np.ndarray, ...]  # (H, W) uint8
    labels: tuple[np.ndarray, ...]  # (H, W) uint8, 255 = cell
    said: str


def registry() -> dict[str, str]:
    """Return the SHA-256 of every file by its path below ``isbi2012/``."""
    text = resources.files(__package__).joinpath("_isbi2012_registry.txt").read_text("utf-8")
    return dict(line.split() for line in text.splitlines())


def places() -> list[Place]:
    """List where to look, in this order."""
    found = []
    if os.environ.get(VARIABLE):
        found.append(Place(Path(os.environ[VARIABLE]).expanduser(), f"from {VARIABLE}", ours=False))
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file():
        found.append(Place(checkout / "data", "from this checkout's data/", ours=True))
    found.append(Place(Path(pooch.os_cache("unet-tutorial")), "from your cache", ours=True))
    return found


def read_stack(*, insist: bool, say: Callable[[str], None] = print) -> Stack:
    """Find or download the stack, and decode it.

    Parameters
    ----------
    insist : bool
        Raise at files that are wrong; otherwise say so loudly and look elsewhere.
    say : callable
        Told the warnings, and terms and citation before a download.

    Raises
    ------
    CorruptDataError
        If files on disk are wrong (``insist``), or those that the server sends.
    DataNotFoundError
        If nothing is on disk and the server cannot be reached or has no such file; if the folder
        of ``UNET_TUTORIAL_DATA`` is not there or incomplete (``insist``).
    """
    files = registry()
    landing = None
    for place in places():
        try:
            whole = _inspect(place, files)
        except (CorruptDataError, DataNotFoundError) as problem:
            if insist:
                raise
            say(f"WARNING: {problem}")
            continue
        if whole:
            return _decode(place.folder / FOLDER, files, place.said)
        if landing is None and place.ours and _writable(place.folder):
            landing = place
    if landing is None:
        raise DataNotFoundError("ISBI 2012 is not on disk, and no folder is left to download it to")
    _download(landing, files, say)
    return _decode(
        landing.folder / FOLDER, files, f"downloaded {landing.said.replace('from', 'to')}"
    )


def _inspect(place: Place, files: dict[str, str]) -> bool:
    """Say whether a place has every file; raise where somebody has to look."""
    folder = place.folder / FOLDER
    if not place.ours and not place.folder.is_dir():
        raise DataNotFoundError(
            f"{VARIABLE} names {place.folder}, which is no folder: correct or unset it"
        )
    if not folder.is_dir():
        return False
    missing = [name for name in files if not (folder / name).is_file()]
    wrong = []
    for name in files.keys() - missing:
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != files[name]:
            wrong.append((name, found))
    if wrong:
        wrong.sort()
        name, found = wrong[0]
        others = f" (and {_some([other for other, _ in wrong[1:]])})" if wrong[1:] else ""
        raise CorruptDataError(
            f"ISBI 2012 {place.said}: {folder / name} is corrupt{others}: expected SHA-256 "
            f"{files[name]}, found {found}. Delete it and load again, or ask for 'membranes'"
        )
    if missing and not place.ours:
        raise DataNotFoundError(
            f"ISBI 2012 {place.said} is incomplete: {folder} has {len(files) - len(missing)} of "
            f"{len(files)} files, without {_some(missing)}. Add them, or unset {VARIABLE}"
        )
    return not missing


def _writable(folder: Path) -> bool:
    there = next(above for above in (folder, *folder.parents) if above.exists())
    return os.access(there, os.W_OK)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _decode(folder: Path, files: dict[str, str], said: str) -> Stack:
    stacks: dict[str, tuple[np.ndarray, ...]] = {}
    for kind in ("image", "label"):
        names = [name for name in files if name.startswith(f"train/{kind}/")]
        stacks[kind] = tuple(imread(folder / name) for name in names)
    return Stack(stacks["image"], stacks["label"], said)


class _Downloader:
    """Pooch's download over HTTP, given up at once where trying again cannot help."""

    def __init__(self) -> None:
        self.http = pooch.HTTPDownloader(
            chunk_size=1 << 16, timeout=(CONNECT_SECONDS, READ_SECONDS)
        )

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        try:
            self.http(url, output_file, pooch)
        except requests.HTTPError as error:
            if error.response is None:
                raise
            error.response.close()  # pooch leaves it open
            status = error.response.status_code
            if 400 <= status < 500 and status not in (408, 429):
                raise DataNotFoundError(f"the server answered {status} to {url}") from error
            raise


def _download(place: Place, files: dict[str, str], say: Callable[[str], None]) -> None:
    _require_network()
    folder = place.folder / FOLDER
    say("Downloading ISBI 2012 (30 electron micrographs with labels, 6 MB).")
    say(f"Terms: {TERMS}")
    say(f"Cite: {CITATION}")
    pooch.get_logger().setLevel(logging.WARNING)  # one bar says it better than 60 lines
    # Before the workers start: pooch stumbles when two of them make the same folder.
    try:
        for subfolder in {(folder / name).parent for name in files}:
            subfolder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataNotFoundError(f"ISBI 2012 has no place on this disk: {error}") from error
    source = pooch.create(path=folder, base_url=BASE_URL, registry=files, retry_if_failed=RETRIES)
    downloader = _Downloader()
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = {pool.submit(source.fetch, name, downloader=downloader): name for name in files}
        try:
            for done in tqdm(
                as_completed(waiting), total=len(files), desc="ISBI 2012", unit="file", ncols=79
            ):
                _result(done, waiting[done], files)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _result(done: Any, name: str, files: dict[str, str]) -> None:
    """Turn what pooch and requests raise into an error that says what to do."""
    again = "What arrived whole is kept: load again, or ask for 'membranes'"
    try:
        done.result()
    except DataNotFoundError as error:
        raise DataNotFoundError(f"ISBI 2012: {name} is not there: {error}. {again}") from error
    except OSError as error:  # of the network (requests) or of the disk
        raise DataNotFoundError(
            f"ISBI 2012: {name} could not be downloaded: {error}. {again}"
        ) from error
    except ValueError as error:
        raise CorruptDataError(
            f"ISBI 2012: {name} arrived corrupt {1 + RETRIES} times (expected SHA-256 "
            f"{files[name]}) and was not kept. {again}"
        ) from error


def _require_network() -> None:
    """Find out within seconds whether the server can be reached at all.

    A host has many addresses, and each may wait for its own timeout: the question is asked on a
    thread that nobody waits for longer than one.
    """
    answer: list[Exception | None] = []

    def ask() -> None:
        try:
            requests.head(BASE_URL, timeout=CONNECT_SECONDS, allow_redirects=False)
            answer.append(None)
        except requests.RequestException as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    if not answer or answer[0] is not None:
        why = type(answer[0]).__name__ if answer else f"no answer in {CONNECT_SECONDS + 1:.0f} s"
        raise NoNetworkError(
            f"ISBI 2012 is not on disk and could not be downloaded ({why}). Put it into a folder "
            f"isbi2012/train/ below the one that {VARIABLE} names, or ask for 'membranes'"
        )
