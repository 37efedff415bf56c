"""Measured results as JSON files: written by scripts, read by the book's pages."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unet_tutorial.devices import describe_machine


def write_results(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    description: str,
    settings: Mapping[str, Any],
    device: torch.device | None = None,
) -> Path:
    """Write measured rows with all that they depend on; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
        JSON file to write. Its folder is made if it is missing.
    rows : sequence of mapping
        One mapping a measurement, of plain values.
    description : str
        One line for a reader: what was measured, on what.
    settings : mapping
        What all rows share.
    device : torch.device, optional
        Where it was measured.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is no row.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_results(Path(folder) / "a.json", [{"x": 1}], description="", settings={})
    ...     read_results(file)["rows"]
    [{'x': 1}]
    """
    if not rows:
        raise ValueError("there is no result to write: rows is empty")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "description": description,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": describe_machine(device),
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(half, path)
    return path


def read_results(path: str | Path) -> dict[str, Any]:
    """Read a file of `write_results`.

    Parameters
    ----------
    path : str or Path
        The file, or its name in ``book/results`` (``"board"``, ``"gpu/board"``).

    Returns
    -------
    dict
        ``description``, ``date``, ``commit``, ``machine``, ``settings``, ``rows``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    name = f"{path.as_posix()}.json"
    here = Path(__file__).resolve().parents[1]
    installed = here / "unet_tutorial" / "_results"  # where no checkout is, as in Colab
    for folder in (Path("results"), here / "book" / "results", installed):
        if (folder / name).exists():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    raise FileNotFoundError(
        f"no results named {str(path)!r}: the files of book/results come with a checkout, and "
        "`make gpu-results` or the scripts in scripts/ write them anew"
    )


def mean_and_spread(
    rows: Sequence[Mapping[str, Any]], by: Sequence[str], value: str
) -> dict[tuple[Any, ...], tuple[float, float]]:
    """Average a value over the rows that agree in some columns.

    Parameters
    ----------
    rows : sequence of mapping
        From `read_results`.
    by : sequence of str
        Columns that make a group.
    value : str
        Column to average.

    Returns
    -------
    dict
        By group, in order of appearance: mean and standard deviation (of the sample, n - 1; 0
        for a single row).

    Examples
    --------
    >>> mean_and_spread([{"a": 1, "x": 2.0}, {"a": 1, "x": 4.0}], ["a"], "x")
    {(1,): (3.0, 1.4142135623730951)}
    """
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(float(row[value]))
    return {
        group: (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)
        for group, values in groups.items()
    }


def _commit() -> str:
    """Name the commit that was measured; with a plus where files were changed since."""
    here = Path(__file__).resolve().parent
    try:
        say = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(say, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
