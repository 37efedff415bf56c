"""The appendix of mistakes computes each of its claims, and says where the matter is told."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pytest
from conftest import ROOT

PAGE = ROOT / "book" / "mistakes.ipynb"


def sections() -> dict[str, list[Any]]:
    """Return the cells of each section by its heading; a cell of prose ends one, begins another."""
    found: dict[str, list[Any]] = {}
    heading = ""
    for cell in nbformat.read(PAGE, as_version=4).cells:
        if cell.cell_type == "code":
            found.setdefault(heading, []).append(cell)
            continue
        before, *rest = re.split(r"(?m)^(#{2,3} .*)$", cell.source)
        found.setdefault(heading, []).append(before)
        for title, text in zip(rest[::2], rest[1::2], strict=True):
            heading = title
            found.setdefault(heading, []).append(text)
    return {title: cells for title, cells in found.items() if title.startswith("### ")}


@pytest.mark.parametrize("title", sections())
def test_every_mistake_is_computed_and_sent_to_its_chapter(title: str) -> None:
    cells = sections()[title]
    code = [cell for cell in cells if not isinstance(cell, str)]
    compared = [cell for cell in code if "nbval-ignore-output" not in cell.metadata.get("tags", [])]
    printed = "".join(output.get("text", "") for cell in compared for output in cell.outputs)
    assert printed, "nothing is printed that nbval compares"
    prose = "\n".join(cell for cell in cells if isinstance(cell, str))
    assert re.search(r"\]\(([0-7]-[\w-]+|sources)\.ipynb\)", prose)


def test_there_are_twenty_mistakes_and_more() -> None:
    assert len(sections()) >= 20
