"""Which exercises one has solved: a small file of one's own, and a view of it."""

from __future__ import annotations

import datetime
import html
import json
import os
from pathlib import Path

import platformdirs

from unet_tutorial._files import write_text_whole
from unet_tutorial.exercises._exercise import CHAPTERS, REGISTRY, Exercise

VARIABLE = "UNET_TUTORIAL_PROGRESS"
# Solved in this process: all there is where no file is kept.
_session: dict[str, str] = {}


def progress_file() -> Path | None:
    """Return where one's progress is kept; None where none is.

    The environment variable ``UNET_TUTORIAL_PROGRESS`` names another file; empty, it turns the file
    off, as the runner of the chapters does, so that a stored page shows nobody's own progress. So
    does a run of pytest, in which nobody solves anything.

    Examples
    --------
    >>> print(progress_file())
    None
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    if "PYTEST_VERSION" in os.environ:  # pytest's own way to say that it runs; kernels inherit it
        return None
    return Path(platformdirs.user_data_dir("unet-tutorial", appauthor=False)) / "exercises.json"


def solved() -> dict[str, str]:
    """Return the numbers of the solved exercises, and the day of each.

    A file that cannot be read is renamed, and that is said: nothing is lost.
    """
    file = progress_file()
    if file is None:
        return dict(_session)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return dict(_session)
    except (OSError, UnicodeDecodeError) as error:
        return _set_aside(file, error)
    try:
        kept = json.loads(text)["solved"]
        if not all(isinstance(part, str) for pair in kept.items() for part in pair):
            raise ValueError("numbers and days of solved exercises are expected")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _set_aside(file, error)
    return {**_session, **kept}


def note_solved(number: str) -> None:
    """Remember that an exercise is solved; the first day counts."""
    today = datetime.date.today().isoformat()
    before = solved()
    if number in before and number in _session:
        return
    _session.setdefault(number, before.get(number, today))
    _write({**before, number: before.get(number, today)})


def forget() -> None:
    """Forget all that is solved."""
    _session.clear()
    file = progress_file()
    if file is not None:
        file.unlink(missing_ok=True)


def _write(content: dict[str, str]) -> None:
    file = progress_file()
    if file is None:
        return
    text = json.dumps({"format": 1, "solved": dict(sorted(content.items()))}, indent=1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(file, text + "\n")
    except OSError as error:
        print(f"(Your progress is kept until this kernel ends only: {error.strerror}, {file})")


def _set_aside(file: Path, error: Exception) -> dict[str, str]:
    number, aside = 1, file.with_name(file.name + ".broken")
    while aside.exists():
        number += 1
        aside = file.with_name(f"{file.name}.broken{number}")
    try:
        os.replace(file, aside)
        what = f"it is set aside as {aside.name}, and a new one begins"
    except OSError:
        what = "it is left as it is"
    print(f"(Your progress in {file} cannot be read, {type(error).__name__}; {what}.)")
    return dict(_session)


class Progress:
    """One's own progress; made by `progress`, shown by a notebook as a table."""

    def __init__(self, done: dict[str, str]) -> None:
        self.done = {number: day for number, day in done.items() if number in REGISTRY}

    def _chapters(self) -> list[tuple[int, list[Exercise]]]:
        by_chapter: dict[int, list[Exercise]] = {}
        for one in REGISTRY.values():
            by_chapter.setdefault(one.chapter, []).append(one)
        return sorted(by_chapter.items())

    def _next(self) -> Exercise | None:
        """Go on behind the last that is solved; what was left out before comes at the end."""
        book = list(REGISTRY.values())
        last = max((place for place, one in enumerate(book) if one.number in self.done), default=-1)
        return next((one for one in book[last + 1 :] + book if one.number not in self.done), None)

    def summary(self) -> str:
        """Say how many are solved, and which comes next."""
        following = self._next()
        words = f"{len(self.done)} of {len(REGISTRY)} exercises solved"
        if following is None:
            return f"{words}: all of them."
        return f"{words}. Open next: {following.number} {following.title}."

    def __repr__(self) -> str:
        width = max(map(len, CHAPTERS.values()))
        lines = []
        for chapter, exercises in self._chapters():
            marks = "  ".join(f"{self._mark(one)} {one.number}" for one in exercises)
            lines.append(f"{chapter} {CHAPTERS[chapter]:{width}}  {marks}")
        return "\n".join([*lines, self.summary()])

    def _repr_html_(self) -> str:
        # No color of its own: a table of this class is the host's, in both themes.
        rows = []
        for chapter, exercises in self._chapters():
            count = sum(one.number in self.done for one in exercises)
            marks = " &ensp;".join(
                f'<span style="white-space: nowrap">{self._mark(one)} {one.number}</span>'
                for one in exercises
            )
            rows.append(
                f'<tr><th scope="row" style="text-align: left">{chapter} '
                f"{html.escape(CHAPTERS[chapter])}</th><td>{count} of {len(exercises)}</td>"
                f'<td style="text-align: left">{marks}</td></tr>'
            )
        return (
            '<table class="dataframe"><caption style="color: inherit">Your exercises: ✓ solved, '
            "○ open</caption><thead><tr>"
            '<th scope="col" style="text-align: left">Chapter</th><th scope="col">Solved</th>'
            '<th scope="col" style="text-align: left">Exercises</th></tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table><p>{html.escape(self.summary())}</p>"
        )

    def _mark(self, one: Exercise) -> str:
        return "✓" if one.number in self.done else "○"


def progress() -> Progress:
    """Show which exercises you have solved.

    Kept in a small file of your own, from one notebook and one day to the next (on Colab: as long
    as its machine lives).

    Returns
    -------
    Progress
        A notebook shows it as a table, everything else as text.

    Examples
    --------
    >>> progress()
    0 Context and localization  ...
    ... exercises solved...
    """
    return Progress(solved())
