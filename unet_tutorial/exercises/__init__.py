"""Exercises that answer at once: ``check("3.2", my_function)``.

The tasks stand in the chapters, each with a stub to fill in and a folded solution. Here is what
looks at an answer: `check` says whether it is right, else what was expected, what came instead, and
a hint. `progress` shows what you have solved.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import pkgutil
import random
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from unet_tutorial.exercises._exercise import (
    REGISTRY,
    Exercise,
    Unanswered,
    Wrong,
    what_went_wrong,
)
from unet_tutorial.exercises._progress import note_solved, progress

__all__ = ["Exercise", "Verdict", "check", "hint", "list_exercises", "progress"]

# Verifying takes a fraction of a second; an answer that takes so long will not end.
SECONDS = 20.0

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    if _module.startswith("_chapter"):
        importlib.import_module(f"{__name__}.{_module}")


class Verdict(int):
    """What `check` returns: 1 for solved, 0 for not yet; a notebook shows nothing for it."""

    def __repr__(self) -> str:
        return str(bool(self))

    def _ipython_display_(self) -> None:
        """Show nothing: `check` has said it all."""


def check(number: str, answer: Any) -> Verdict:
    """Look at an answer, and print what is so.

    Parameters
    ----------
    number : str
        The exercise, such as ``"3.2"``.
    answer : object
        What the task asks for: a function, a class, a number, a shape.

    Returns
    -------
    Verdict
        True if the answer is right. A wrong one never raises. The notebook's random numbers, and
        what is handed over, are left as they were.

    Raises
    ------
    ValueError
        If there is no such exercise.

    Examples
    --------
    >>> check("3.1", ((64, 40, 60), 8224))
    ✗ 3.1 ...
      The large map is not 64×40×60: height and width are right, channels (64) are not...
      Hint: ...
    False
    """
    one = _find(number)
    head = f"{one.number} {one.title}"
    try:
        with _undisturbed(), _time_limit(SECONDS):
            try:
                one.verify(answer)
            except Wrong:
                raise
            except Exception as error:  # an answer that no verifier has foreseen
                raise Wrong(f"Checking it stopped with {what_went_wrong(error)}") from error
    except Unanswered as still:
        what = f"{still} " if str(still) else ""
        print(f"○ {head}")
        _print_wrapped(f"{what}Your turn: replace the dots. The answer is {one.answer}.")
        _print_wrapped(f'hint("{one.number}") gives a hint.')
        return Verdict(False)
    except Wrong as wrong:
        print(f"✗ {head}")
        _print_wrapped(str(wrong))
        _print_wrapped(f"Hint: {one.hint}")
        return Verdict(False)
    print(f"✓ {head}")
    _print_wrapped(one.shown)
    note_solved(one.number)
    return Verdict(True)


def hint(number: str) -> None:
    """Print the hint of an exercise.

    Parameters
    ----------
    number : str
        Such as ``"3.2"``.

    Raises
    ------
    ValueError
        If there is no such exercise.

    Examples
    --------
    >>> hint("3.1")
    3.1 ...
      Hint: ...
    """
    one = _find(number)
    print(f"{one.number} {one.title}")
    _print_wrapped(f"Hint: {one.hint}")


def list_exercises(chapter: int | None = None) -> list[Exercise]:
    """List the exercises.

    Parameters
    ----------
    chapter : int, optional
        Only those of one chapter.

    Returns
    -------
    list of Exercise
        In the order of the book.

    Examples
    --------
    >>> [one.number for one in list_exercises(3)]
    ['3.1', '3.2', ...]
    """
    return [one for one in REGISTRY.values() if chapter in (None, one.chapter)]


def _find(number: str) -> Exercise:
    number = str(number).strip()
    if number in REGISTRY:
        return REGISTRY[number]
    chapter = number.partition(".")[0]
    near = [
        f"{one.number} ({one.title})" for one in REGISTRY.values() if str(one.chapter) == chapter
    ]
    if near:
        raise ValueError(
            f"there is no exercise {number!r}; chapter {chapter} has {', '.join(near)}"
        )
    chapters = sorted({one.chapter for one in REGISTRY.values()})
    raise ValueError(
        f"there is no exercise {number!r}; exercises are numbered by chapter and place, such as "
        f"'3.2', in the chapters {', '.join(map(str, chapters))}"
    )


def _print_wrapped(text: str) -> None:
    for line in text.splitlines():
        print(textwrap.fill(line, 88, initial_indent="  ", subsequent_indent="  "))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Give verifiers random numbers that are always the same, and the notebook its own back."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what does not end, as Ctrl-C would; where signals do not reach, wait on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lock, done, late = threading.Lock(), False, False

    def interrupt() -> None:
        nonlocal late
        with lock:
            if not done:
                late = True
                _thread.interrupt_main()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            with lock:
                done = True
            timer.cancel()
            if late:
                time.sleep(0.05)  # let the interrupt arrive here, not in what comes after
    except KeyboardInterrupt:
        if not late:
            raise
        raise Wrong(
            f"It had not ended after {seconds:g} seconds, and was stopped. Is there a loop without "
            "an end?"
        ) from None
