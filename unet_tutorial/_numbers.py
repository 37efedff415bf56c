"""The numbers in a text: what they are worth, and which of them are only parts of names.

`unet_tutorial.prose` looks for the sources of those that are left.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from unet_tutorial.results import mean_and_spread

_NUMBER = re.compile(
    r"(?:(?<![\w.])|(?<=[0-9]x))"  # no digit of a name such as float32; both numbers of 572x388
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.(?P<decimals>[0-9]+))?"
    r"(?:e(?P<power>[+-]?[0-9]+)|/(?P<under>[0-9]+))?"
    r"(?:\s?\\?(?P<unit>%|percent\b|thousand\b|million\b|billion\b))?"
)
_UNITS = {"%": -2, "percent": -2, "thousand": 3, "million": 6, "billion": 9}

_LIST = r"[0-9]+(?:\.[0-9]+)*(?:(?:,? (?:and|or|to) |, ?|[–-])[0-9]+(?:\.[0-9]+)*)*"
_ACTION = r"(?:[a-z]+[\s-]|\{term\}`)?(?:de|up-?)?(?:convolution|max pool|pool)"
_AUTHORS = r"[A-Z]\w+(?: (?:et al\.|and others),?|,)|(?:,|and|&)\s[A-Z]\w+"
# Why a number is no claim, and what it then stands in.
_NAMES = {
    "code": r"(?<!`)(`{1,2})(?!`)[^`]+\1(?!`)",  # it is run, or tested, elsewhere
    "address": r"\]\([^)\s]*\)|<?https?://[^\s)>]+|\barXiv:? ?[0-9.]+[0-9]",
    "markup": r"</?[a-zA-Z][^>]*>|<!--[\s\S]*?-->|^:[\w-]+:.*$|^\([\w-]+\)=",
    "cross reference": rf"\b(?i:chapter|exercise|section|figure|level|skip|part)s?\s+{_LIST}",
    "heading": r"^#+ [0-9]+(?:\.[0-9]+)*(?= )|^#+ .*\([0-9]+(?:\.[0-9]+)*\)$",
    "exercise": r"^\*\*[0-9]+\.\*\*",
    "operation": (
        rf"\b[1-9]\s?×\s?[1-9](?=[\s-]{_ACTION})"
        r"|\b(?i:kernel(?: size)?|stride|padding)(?: of)?\s+[0-9]\b"
    ),
    "data set": r"\bISBI[ -][0-9]{4}\b",
    "citation": rf"(?:{_AUTHORS})\s\(?[12][0-9]{{3}}\b",
    "data type": r"\b[0-9]+-bit\b",
    "dimension": r"\b[1-4]D\b",
    "license": r"\bCC BY(?:-[A-Z]+)* [0-9.]+[0-9]",
    "power or index": r"[\^_]\{?-?[0-9]+\}?",  # of a formula; ² is no digit to begin with
}
_LABELS = {"chapter", "exercise", "figure", "level", "section"}


@dataclass(frozen=True)
class Number:
    """A number as it is written.

    Attributes
    ----------
    text : str
        As it stands there.
    start, end : int
        Where it stands.
    value : Fraction or None
        Its value; None for 0/0.
    step : Fraction
        What one more in the last digit is worth.
    digits : int
        How many it has, zeros in front not counted.
    """

    text: str
    start: int
    end: int
    value: Fraction | None
    step: Fraction
    digits: int

    def match(self, others: Sequence[Number]) -> Number | None:
        """Find this number among others.

        Parameters
        ----------
        others : sequence of Number
            Where to look.

        Returns
        -------
        Number or None
            The first that is equal; else, for two digits and more, the first that rounds to it.
            A fraction such as 3/7 is found as 0.43 as well.

        Examples
        --------
        >>> find_numbers("46 %")[0].match(find_numbers("pixel error 0.4603, Dice 0.8")).text
        '0.4603'
        """
        if self.value is None:
            return next((other for other in others if other.text == self.text), None)
        near = None
        for other in others:
            if other.value is None:
                continue
            away = abs(self.value - other.value)
            if not away:
                return other
            short, long = (self, other) if self.step else (other, self)
            if short.digits > 1 and long.step < short.step and away <= short.step / 2:
                near = near or other
        return near


def find_numbers(text: str) -> list[Number]:
    """Find the numbers in prose, or in what a cell prints.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of Number
        From left to right.

    Examples
    --------
    >>> [number.text for number in find_numbers("572→388 of 31,030,658, 46 % in float32, 39×39")]
    ['572', '388', '31,030,658', '46 %', '39', '39']
    """
    numbers = []
    for found in _NUMBER.finditer(text):
        decimals, under = found["decimals"] or "", int(found["under"] or 1)
        power = int(found["power"] or 0) + _UNITS.get(found["unit"] or "", 0)
        digits = found["whole"].replace(",", "") + decimals
        step = Fraction(10) ** (power - len(decimals))
        value = int(digits) * step / under if under else None
        step = Fraction(0) if found["under"] else step
        numbers.append(Number(found[0], *found.span(), value, step, len(digits.lstrip("0"))))
    return numbers


def find_names(text: str) -> Iterator[tuple[str, int, int]]:
    """Find what may hold digits without claiming a number.

    Parameters
    ----------
    text : str
        Prose in MyST Markdown. A fence with a directive, such as an admonition, holds prose.

    Yields
    ------
    tuple of (str, int, int)
        What it is, and from where to where.

    Examples
    --------
    >>> text = "In chapter 4 a 3×3 convolution sees 9 pixels."
    >>> [(what, text[start:end]) for what, start, end in find_names(text)]
    [('cross reference', 'chapter 4'), ('operation', '3×3')]
    """
    for what, pattern in _NAMES.items():
        for found in re.finditer(pattern, text, re.MULTILINE):
            yield what, *found.span()
    # The rest only its line tells.
    fences: list[tuple[str, bool, int]] = []
    item, head, start = 0, "", 0
    for line in text.splitlines(keepends=True):
        end = start + len(line)
        fence = re.match(r"[>\s]*(`{3,}|~{3,}|:{3,})(\{[\w-]+\})?(.*)", line)
        marker = re.match(r"[>\s]*([0-9]+)[.)]\s", line)
        cell = re.match(r"\|([^|]*)\|", line)
        if fence and fences and fence[1].startswith(fences[-1][0]) and not fence[2]:
            _, is_code, begin = fences.pop()
            if is_code:
                yield "code", begin, end
        elif fence and not (fences and fences[-1][1]):
            fences.append((fence[1], not fence[2] or fence[2].startswith("{code"), start))
        elif marker and int(marker[1]) in (1, item + 1):  # not a sentence's line "38. Pad it"
            item = int(marker[1])
            yield "list marker", start, start + marker.end()
        elif cell and head in _LABELS:
            yield "label of a row", start, start + cell.end()
        head = (head or cell[1].strip().lower() or "none") if cell else ""
        start = end


def numbers_of_results(content: Mapping[str, Any]) -> list[Number]:
    """List the numbers of a result file, with their means and spreads over the seeds.

    Parameters
    ----------
    content : mapping
        From `unet_tutorial.results.read_results`. A column that is the same for every seed, or
        holds words, is a setting; the others are averaged by the settings. Rows that name a
        ``part`` are averaged within it.

    Returns
    -------
    list of Number
        All exact; they stand nowhere.

    Examples
    --------
    >>> rows = [{"depth": 4, "seed": seed, "dice": 0.7 + seed / 10} for seed in (0, 1)]
    >>> [number.text for number in numbers_of_results({"rows": rows})]
    ['4', '0', '0.7', '4', '1', '0.8', '0.75', '0.0707107']
    """
    values = [value for _, value in _leaves(content)]
    rows = [dict(_leaves(row)) for row in content.get("rows", [])]
    for part in dict.fromkeys(row.get("part") for row in rows):
        values += _averages([row for row in rows if row.get("part") == part])
    given = (value for value in values if not isinstance(value, str))
    return [Number(f"{v:.6g}", 0, 0, Fraction(str(v)), Fraction(0), 0) for v in given]


def _averages(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Give mean and spread over the seeds of every column that is measured."""
    names = dict.fromkeys(name for row in rows for name in row if name != "seed")
    seeds = {row.get("seed") for row in rows}

    def is_setting(name: str) -> bool:
        by_seed = {tuple(r.get(name) for r in rows if r.get("seed") == seed) for seed in seeds}
        return len(by_seed) == 1 or all(isinstance(row.get(name), str) for row in rows)

    settings = list(filter(is_setting, names))
    values: list[float] = []
    for name in names:
        if name not in settings:
            # Rows of another kind may lack a setting.
            measured = [{**dict.fromkeys(settings, ""), **row} for row in rows if name in row]
            for group in mean_and_spread(measured, settings, name).values():
                values += group
    return values


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through what a JSON file holds, down to its words and finite numbers."""
    if isinstance(content, dict | list):
        inside = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in inside:
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, str) or (type(content) in (int, float) and math.isfinite(content)):
        yield name, content
