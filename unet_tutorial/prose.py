"""Where each number in the prose of the book comes from.

A number is what is written in digits: 572, 31,030,658, 0.94, 46 %, 1/16, 31 million; × and → part
a token into its numbers, a sign before a number is not looked at. Numbers written as words are
not scanned. Each number has one of these sources, tried in this order:

1. ``name``: it is no claim but part of a name, as `unet_tutorial._numbers.find_names` finds them.
2. ``cell N``: the N-th code cell of the same notebook prints it, exactly or, for two digits and
   more, with further digits that round to it. 46 % is printed as 46%, 46.0%, 0.46 or 0.456.
3. ``results/NAME.json``: a value of a result file that the page names or reads, or the mean or
   the spread over seeds, with the same rounding; two digits or more, since each file has a 1.
4. ``book/numbers.yml``, the ledger: entries of ``page``, ``text`` (the phrase with the number,
   word for word) and ``source``: ``test: FILE::FUNCTION`` for a test in whose file it stands,
   ``data: FILE`` in ``data/``, ``choice: FILE::NAME`` in the code, ``cell: PAGE`` for what
   another page prints, ``paper:`` with its section or figure, ``input:`` and why, for what the
   text poses itself. An entry goes before what only rounds to the number, often by accident.

Needs the extra ``[book]``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_tutorial._files import in_checkout
from unet_tutorial._numbers import Number, find_names, find_numbers, numbers_of_results

_ADVICE = (
    "Print each in a cell, read it from a result file that the page names, leave it out, or enter "
    "it in book/numbers.yml (how: the head of unet_tutorial/prose.py)."
)


@dataclass(frozen=True)
class Claim:
    """A number in the prose, the words around it, and its source: empty if there is none."""

    page: str
    number: str
    context: str
    source: str


@dataclass(frozen=True)
class _Page:
    stem: str
    prose: list[tuple[int, str]]  # each piece, and how many code cells stand before it
    printed: list[list[Number]]  # by each code cell
    results: dict[str, list[Number]]


def trace_numbers(root: Path) -> tuple[list[Claim], list[str]]:
    """Look for the source of every number in the prose of the book.

    Parameters
    ----------
    root : Path
        The checkout. A page of the contents that is not there is not looked at:
        `chapters.list_chapters` says so.

    Returns
    -------
    claims : list of Claim
        In reading order.
    problems : list of str
        What is wrong with the ledger, and which notebooks have no outputs.

    Raises
    ------
    FileNotFoundError
        If the folder is no checkout of the book.
    ValueError
        If the ledger is not a list of entries.
    """
    pages = {page.stem: page for page in _read_pages(root)}
    ledger = _read_ledger(root)
    claims: list[Claim] = []
    problems = [
        f"{page.stem}: no cell prints a number; store the notebook with its outputs"
        for page in pages.values()
        if page.printed and not any(page.printed)
    ]
    found, used = set(), set()  # entries, by their place in the ledger
    for page in pages.values():
        for before, text in page.prose:
            names = list(find_names(text))
            phrases = []
            for place, entry in enumerate(ledger):
                if entry["page"] == page.stem:
                    words = r"\s+(?:>\s*)?".join(map(re.escape, entry["text"].split()))
                    phrases += [(place, *match.span()) for match in re.finditer(words, text)]
            found |= {place for place, _, _ in phrases}
            for number in find_numbers(text):
                named = [what for what, start, end in names if start <= number.start < end]
                source, exact = _on_the_page(number, page, before)
                if named:
                    source, exact = f"name: {named[0]}", True
                for place, start, end in phrases:
                    if exact or number.start < start or number.end > end:
                        continue
                    used.add(place)
                    fault = _fault(ledger[place]["source"], number, root, pages)
                    if fault:
                        problems.append(f"{page.stem}, {ledger[place]['text']!r}: {fault}")
                    else:
                        source, exact = f"ledger, {ledger[place]['source']}", True
                context = " ".join(text[max(number.start - 25, 0) : number.end + 25].split())
                claims.append(Claim(page.stem, number.text, context, source))
    for place, entry in enumerate(ledger):
        if place not in used:
            why = "none of its numbers needs it" if place in found else "not in the page"
            problems.append(f"{entry['page']}, {entry['text']!r}: stale entry, {why}")
    return claims, problems


def report(claims: Sequence[Claim], problems: Sequence[str], *, missing: bool = False) -> str:
    """Lay out what `trace_numbers` found.

    Parameters
    ----------
    claims : sequence of Claim
    problems : sequence of str
    missing : bool
        Leave out the numbers that have a source.

    Returns
    -------
    str
        One line a number, the sums, then the numbers without a source, and the problems.
    """
    line = "{0.page:28} {0.number:>12}  {0.context:66} {0.source}".format
    without = [claim for claim in claims if not claim.source]
    lines = [] if missing else [line(claim).rstrip() for claim in claims]
    kinds = [re.split(r"\W", claim.source)[0] for claim in claims]
    cells, results, ledger, names = map(kinds.count, ("cell", "results", "ledger", "name"))
    lines.append(
        f"{len(claims)} numbers: {cells} printed by cells, {results} from results, {ledger} in the "
        f"ledger, {names} names; {len(without)} without a source"
    )
    lines += [line(claim).rstrip() for claim in without]
    lines += [_ADVICE] if without else []
    return "\n".join([*lines, *(f"problem: {problem}" for problem in problems)])


def _on_the_page(number: Number, page: _Page, before: int) -> tuple[str, bool]:
    """Look in what the page's cells print, at the nearest first, and in its result files."""
    found = [
        (match.value != number.value, abs(cell - before), f"cell {cell}", match.text)
        for cell, numbers in enumerate(page.printed, start=1)
        if (match := number.match(numbers))
    ]
    found += [
        (match.value != number.value, len(page.printed), f"results/{name}.json", match.text)
        for name, values in page.results.items()
        if number.digits > 1 and (match := number.match(values))
    ]
    if not found:
        return "", False
    rounds, _, place, text = min(found)
    return (f"{place}: {text}", False) if rounds else (place, True)


def _fault(source: str, number: Number, root: Path, pages: dict[str, _Page]) -> str:
    """Say why a source of the ledger does not hold for a number; nothing if it does."""
    kind, _, where = source.partition(": ")
    if kind == "input":
        return "" if where.strip() else "say why it is an input"
    if kind == "paper":
        known = r"(?i)\b(section|figure|table|equation|abstract|title)\b"
        return "" if re.search(known, where) else "name the paper's section or figure"
    if kind == "cell":
        cells = pages[where].printed if where in pages else []
        return "" if any(map(number.match, cells)) else f"{where} prints no {number.text}"
    if kind not in ("test", "data", "choice"):
        return f"unknown source {source!r}"
    path, _, name = where.partition("::")
    file = root / "data" / path if kind == "data" else root / path
    if not file.is_file():
        return f"there is no file {path!r}"
    text = file.read_text(encoding="utf-8")
    if kind == "test" and not re.search(rf"(?m)^\s*def {re.escape(name)}\(", text):
        return f"there is no test {name!r} in {path}"
    if kind == "choice":  # each line that names it, and what follows up to an empty line
        found = re.findall(rf"(?m)^.*\b{re.escape(name)}\b(?:.*\S.*\n?)*", text)
        text = "\n".join(found) if name else ""
    text = re.sub(r"(?<=[0-9])_(?=[0-9])", "", text)  # 31_030_658
    return "" if number.match(find_numbers(text)) else f"{where} does not hold {number.text}"


def _read_pages(root: Path) -> Iterator[_Page]:
    """Read the pages of the contents, first the root page."""
    import yaml

    toc = in_checkout(root, "_toc.yml")
    content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = [content, *content.get("parts", [])]
    stems = [chapter["file"] for part in parts for chapter in part.get("chapters", [])]
    for stem in [content["root"], *stems]:
        page = root / "book" / f"{stem}.md"
        cells: list[dict[str, Any]] = []
        if page.exists():
            cells = [{"cell_type": "markdown", "source": page.read_text(encoding="utf-8")}]
        elif page.with_suffix(".ipynb").exists():
            cells = json.loads(page.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
        prose: list[tuple[int, str]] = []
        printed: list[list[Number]] = []
        for cell in cells:
            if cell["cell_type"] == "code":
                # The table of one's own exercises is about nothing else.
                outputs = [] if cell.get("id") == "progress" else cell["outputs"]
                printed.append(find_numbers("\n".join(map(_shown, outputs))))
            elif cell["cell_type"] == "markdown":
                prose.append((len(printed), "".join(cell["source"])))
        words = "\n".join("".join(cell["source"]) for cell in cells)
        results = {
            file.stem: numbers_of_results(json.loads(file.read_text(encoding="utf-8")))
            for file in sorted((root / "book" / "results").glob("*.json"))
            if re.search(rf"[\"']{file.stem}[\"']|\b{file.stem}\.(json|py)\b", words)
        }
        yield _Page(stem, prose, printed, results)


def _shown(output: dict[str, Any]) -> str:
    """Return the words of an output; <Figure size 950x490> is none, nor is progress on stderr.

    A widget shows hundreds of numbers that no sentence is about: they are no source.
    """
    data = output.get("data", {})
    if 'class="unet-widget"' in "".join(data.get("text/html", "")):
        return ""
    plain = "".join(output.get("text", "")) + "".join(data.get("text/plain", ""))
    table = re.sub(r"(?s)<style.*?</style>|<[^>]*>", " ", "".join(data.get("text/html", "")))
    table = html.unescape(table)
    silent = output.get("name") == "stderr" or plain.startswith("<")
    return table if silent else f"{plain}\n{table}"


def _read_ledger(root: Path) -> list[dict[str, str]]:
    """Read the entries; a book without a ledger has none."""
    import yaml

    file = root / "book" / "numbers.yml"
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else []
    except yaml.YAMLError as error:
        raise ValueError(
            f"book/numbers.yml cannot be read, is a text without quotes?\n{error}"
        ) from None
    for entry in entries or []:
        keys = sorted(entry) if isinstance(entry, dict) else []
        if keys != ["page", "source", "text"] or {*map(type, entry.values())} != {str}:
            raise ValueError(f"{file.name}: an entry has page, text and source, got {entry!r}")
    return entries or []
