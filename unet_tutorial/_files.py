"""Files that appear whole or not at all, and those of a checkout."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_checkout(root: Path, name: str) -> Path:
    """Find a file in the root of a checkout of the book, or say where to run what asks for it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> in_checkout(Path("/"), "_toc.yml")
    Traceback (most recent call last):
    FileNotFoundError: no _toc.yml in /: run this in the root of a checkout of the book
    """
    file = root / name
    if not file.exists():
        raise FileNotFoundError(
            f"no {name} in {root}: run this in the root of a checkout of the book"
        )
    return file


def write_whole(path: Path, write: Callable[[Path], Any], *, sync: bool = False) -> Path:
    """Let a file appear whole or not at all, whatever happens while it is written.

    Parameters
    ----------
    path : Path
        The file. One that is there already is replaced in one step, when all is written.
    write : callable
        Gets the name to write to, beside the file.
    sync : bool
        Whether to wait until the disk has it: for what must outlive a power cut.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_whole(Path(folder) / "a.txt", lambda half: half.write_text("all"))
    ...     file.read_text(), [one.name for one in Path(folder).iterdir()]
    ('all', ['a.txt'])
    """
    half = path.with_name(path.name + ".part")
    half.touch()
    mode = half.stat().st_mode
    write(half)
    half.chmod(mode)  # safetensors writes for its owner alone
    if sync:
        with half.open("rb") as written:
            os.fsync(written.fileno())
    os.replace(half, path)
    return path


def write_text_whole(path: Path, text: str) -> Path:
    r"""Do the same with a text.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text_whole(Path(folder) / "a.txt", "é").read_bytes()
    b'\xc3\xa9'
    """
    return write_whole(path, lambda half: half.write_text(text, encoding="utf-8"))
