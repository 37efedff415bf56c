"""Measured results as JSON files: written by scripts, read by the book's pages."""

from __future__ import annotations

import ast
import datetime
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unet_tutorial._files import write_text_whole
from unet_tutorial.devices import describe_machine

_NAMES = {"v_rand": "V_Rand", "v_info": "V_Info", "dice": "Dice"}  # as the field writes them


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
    return write_text_whole(path, json.dumps(content, indent=1) + "\n")


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


def rows_to_keep(
    path: str | Path,
    planned: Sequence[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any],
    device: torch.device | None = None,
) -> list[dict[str, Any]]:
    """Take over the rows of a file that will not be measured anew, where only a part is.

    Called before anything is measured, so that no measurement is made in vain.

    Parameters
    ----------
    path : str or Path
        File of `write_results`. If there is none, there is nothing to keep.
    planned : sequence of mapping
        What will be measured: the same columns in each, such as the seed.
    settings, device
        As for `write_results`.

    Returns
    -------
    list of dict
        The rows that agree with none of ``planned`` in its columns.

    Raises
    ------
    ValueError
        If the file was measured on another machine, or with other settings.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = [{"seed": 0, "x": 1}, {"seed": 1, "x": 2}]
    ...     file = write_results(Path(folder) / "a.json", rows, description="", settings={})
    ...     rows_to_keep(file, [{"seed": 1}], settings={})
    [{'seed': 0, 'x': 1}]
    """
    if not Path(path).exists():
        return []
    before = read_results(path)
    # As it comes back from a file: tuples are lists there.
    if before["machine"] != describe_machine(device) or before["settings"] != json.loads(
        json.dumps(dict(settings))
    ):
        raise ValueError(
            f"{path} was measured on another machine or with other settings, so a part of it "
            "cannot be replaced: measure all, or write to another file"
        )
    return [
        row
        for row in before["rows"]
        if not any(all(row[name] == value for name, value in one.items()) for one in planned)
    ]


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


def table_of_means(
    rows: Sequence[Mapping[str, Any]],
    by: Sequence[str],
    values: Sequence[str],
    where: Mapping[str, str] | None = None,
) -> list[list[str]]:
    """Write measured rows as the cells of a table: mean ± standard deviation of each group.

    Parameters
    ----------
    rows : sequence of mapping
        From `read_results`.
    by : sequence of str
        Columns that make a group, such as the network; what is left varies with the seed.
    values : sequence of str
        Columns to average. A group without a number in one of them gets a dash there.
    where : mapping of str to str, optional
        Take only rows that have these values.

    Returns
    -------
    list of list of str
        First the head: ``by``, ``values`` and how many rows the group has.

    Raises
    ------
    ValueError
        If no row is left, or none has one of the columns.

    Examples
    --------
    >>> rows = [{"net": "a", "error": 0.25}, {"net": "a", "error": 0.35}, {"net": "b"}]
    >>> for cells in table_of_means(rows, ["net"], ["error"]):
    ...     print(cells)
    ['net', 'error', 'runs']
    ['a', '0.300 ± 0.071', '2']
    ['b', '–', '1']
    """
    wanted = [
        row for row in rows if all(str(row.get(k)) == value for k, value in (where or {}).items())
    ]
    missing = [name for name in (*by, *values) if all(row.get(name) is None for row in wanted)]
    if missing or not wanted:
        known = sorted({name for row in rows for name in row})
        raise ValueError(
            f"no row of {len(rows)} has {', '.join(missing)}"
            + (f" where {where}" if where else "")
            + f"; columns: {', '.join(known)}"
        )
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in wanted:
        groups.setdefault(tuple(_word(row.get(name)) for name in by), []).append(row)
    table = [[_NAMES.get(name, name.replace("_", " ")) for name in (*by, *values)] + ["runs"]]
    for group, members in groups.items():
        cells = [_mean([row.get(name) for row in members]) for name in values]
        table.append([*group, *cells, str(len(members))])
    return table


def markdown_of_means(
    rows: Sequence[Mapping[str, Any]],
    by: Sequence[str],
    values: Sequence[str],
    where: Mapping[str, str] | None = None,
) -> list[str]:
    """Write measured rows as the lines of a table in Markdown.

    Parameters
    ----------
    rows, by, values, where
        As for `table_of_means`.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        As `table_of_means` does.

    Examples
    --------
    >>> rows = [{"net": "a", "v_rand": 0.97}, {"net": "b", "v_rand": 0.95}]
    >>> for line in markdown_of_means(rows, ["net"], ["v_rand"]):
    ...     print(line)
    | net | V_Rand | runs |
    | --- | ---: | ---: |
    | a | 0.970 | 1 |
    | b | 0.950 | 1 |
    """
    head, *body = table_of_means(rows, by, values, where)
    rule = ["---"] * len(by) + ["---:"] * (len(head) - len(by))
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *body)]


def _word(value: Any) -> str:
    if isinstance(value, bool):  # 1 is no yes, although Python finds them equal
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _mean(values: Sequence[Any]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    if any(isinstance(value, str) for value in numbers):
        return ", ".join(sorted(set(map(str, numbers))))
    mean = float(np.mean(numbers))
    if 0 < abs(mean) < 0.0005 and len(numbers) == 1:  # three digits would make it nothing
        return f"{mean:.0e}"
    digits = 0 if abs(mean) >= 100 else 1 if abs(mean) >= 10 else 2 if abs(mean) >= 1 else 3
    if len(numbers) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {np.std(numbers, ddof=1):.{digits}f}"


@dataclass(frozen=True)
class ResultScript:
    """A script that measures, and the file that it writes.

    Attributes
    ----------
    name : str
        Of both, without their endings.
    does : str
        The first line of the script's text.
    command : str
        What writes the file anew.
    measured : str
        When and on what, from the file; empty if there is none.
    """

    name: str
    does: str
    command: str
    measured: str


def list_scripts(root: str | Path) -> list[ResultScript]:
    """List what can be measured anew in a checkout, and what was.

    Parameters
    ----------
    root : str or Path
        Root of a checkout of the book.

    Returns
    -------
    list of ResultScript
        By name.

    Raises
    ------
    FileNotFoundError
        If there is no folder ``scripts``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as checkout:
    ...     script = Path(checkout) / "scripts" / "board.py"
    ...     script.parent.mkdir()
    ...     _ = script.write_text("'Measure the board.'")
    ...     list_scripts(checkout)[0].command
    'python scripts/board.py --out book/results/board.json'
    """
    root = Path(root)
    scripts = sorted((root / "scripts").glob("*.py"))
    if not scripts:
        raise FileNotFoundError(
            f"{root / 'scripts'} has no script: measuring needs a checkout of the book; say where "
            "with --root"
        )
    listed = []
    for script in scripts:
        text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        target = f"book/results/{script.stem}.json"
        found = []
        for file in (root / target, root / f"book/results/gpu/{script.stem}.json"):
            if file.exists():
                about = read_results(file)
                found.append(f"{about['date']}, {machine_name(about['machine'])}")
        listed.append(
            ResultScript(
                script.stem,
                text.split("\n")[0],
                f"python scripts/{script.name} --out {target}",
                "; ".join(found),
            )
        )
    return listed


def machine_name(machine: Mapping[str, Any]) -> str:
    """Say in a few words where a file was measured.

    Examples
    --------
    >>> machine_name({"device": "cpu", "processor": "AMD EPYC", "cores": 2})
    'AMD EPYC, 2 cores'
    """
    if machine["device"] != "cpu":
        return str(machine["device"])
    return f"{machine['processor']}, {machine['cores']} cores"


def _commit() -> str:
    """Name the commit that was measured; with a plus where files were changed since."""
    here = Path(__file__).resolve().parent
    try:
        say = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(say, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
