"""Measured numbers in texts that no one runs, such as README.md: carried there, never typed."""

from __future__ import annotations

import re
from pathlib import Path

from unet_tutorial._files import in_checkout, write_text_whole
from unet_tutorial.results import machine_name, markdown_of_means, read_results

_PLACE = re.compile(
    r"(?P<head><!-- table (?P<said>[^\n]*?) -->\n)(?P<table>.*?)(?P<end><!-- /table -->)", re.DOTALL
)
_BEGIN, _END = "<!-- table ", "<!-- /table -->"


def fill_tables(text: str, results: Path) -> str:
    """Write every table of a text anew from the files that were measured.

    Parameters
    ----------
    text : str
        Markdown. A table stands between ``<!-- table NAME | by: ... | values: ... -->`` and
        ``<!-- /table -->``; ``| where: column=value`` takes only some rows, as in
        `unet_tutorial.results.markdown_of_means`.
    results : Path
        The folder ``book/results``.

    Returns
    -------
    str
        The text; all outside the tables stays.

    Raises
    ------
    FileNotFoundError
        If there is no measured file of that name.
    ValueError
        If a place has no end, or names columns that the file does not have.

    Examples
    --------
    >>> fill_tables("No table here.", Path())
    'No table here.'
    """
    whole = len(_PLACE.findall(text))
    if not whole == text.count(_BEGIN) == text.count(_END):
        raise ValueError(
            f"{text.count(_BEGIN)} tables begin and {text.count(_END)} end: each stands between "
            f"{_BEGIN}NAME | by: ... | values: ... --> and {_END}"
        )
    return _PLACE.sub(lambda found: found["head"] + _table(found["said"], results) + _END, text)


def carry_tables(root: Path) -> list[Path]:
    """Write the tables of README.md anew; return it if that changed something.

    Parameters
    ----------
    root : Path
        The checkout.

    Returns
    -------
    list of Path

    Raises
    ------
    FileNotFoundError
        If the folder is no checkout of the book.
    """
    in_checkout(root, "_toc.yml")
    file = root / "README.md"
    text = file.read_text(encoding="utf-8")
    filled = fill_tables(text, root / "book" / "results")
    if filled == text:
        return []
    write_text_whole(file, filled)
    return [file]


def _table(said: str, results: Path) -> str:
    """Write one table in Markdown, with where and when it was measured."""
    name, *options = (part.strip() for part in said.split("|"))
    given = dict(option.split(":", 1) for option in options if ":" in option)
    columns = {
        key: [one.strip() for one in value.split(",") if one.strip()]
        for key, value in given.items()
    }
    if set(columns) - {"where"} != {"by", "values"}:
        raise ValueError(
            f"table {said!r} has {', '.join(given) or 'nothing'}: expected by, values and, if "
            "wanted, where"
        )
    file = results / f"{name}.json"
    if not file.exists():
        raise FileNotFoundError(f"table {name}: there is no {file}; make results NAME={name}")
    about = read_results(file)
    where = dict(pair.split("=", 1) for pair in columns.get("where", []))
    lines = markdown_of_means(about["rows"], columns["by"], columns["values"], where)
    measured = f"Measured {about['date']} on {machine_name(about['machine'])}; ± between seeds."
    return "\n".join([*lines, "", f"<sub>{measured}</sub>", ""])
