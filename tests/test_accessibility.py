"""The axe of these tests is faster than axe, and says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accessibility import HASTENED, ask, find_violations
from axe_playwright_python.base import AXE_SCRIPT

BAD = """<!doctype html><html><head><title>Bad</title><style>
  .gradient { background: linear-gradient(white, gray) }
  .clear { background: rgb(0 0 0 / 30%); color: rgba(255, 255, 255, 0.8) }
  .faded { opacity: 0.4 }
  .modern { background: oklch(60% 0.1 200); color: hsl(200 50% 60%) }
  .mixed { color: color-mix(in srgb, teal, white 40%); text-shadow: 0 0 2px gray }
  .named { background: rebeccapurple; color: slateblue }
</style></head><body>
<p class="gradient">gradient</p> <p class="clear">clear <b class="faded">and faded</b></p>
<div class="clear"><p class="clear">over <a href="#x" style="color: #777">itself</a></p></div>
<p class="modern">modern</p> <p class="mixed">mixed</p> <p class="named">named</p>
<p style="color: #888">gray</p> <p style="color: #666">gray enough</p>
<img src="a.png"> <button></button> <input> <a href="#gone"></a>
<ul><p>no item</p></ul> <h4>a level too deep</h4>
<p id="a">a</p> <label for="a" id="a">twice</label>
</body></html>"""


@pytest.fixture
def page(browser: Any) -> Any:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context.new_page()


def all_of(page: Any, script: str) -> list[Any]:
    """Everything that axe has found, seen to be right, or could not decide."""
    found = ask(page, script, {})
    return [found[kind] for kind in ("violations", "passes", "incomplete", "inapplicable")]


def test_on_a_bad_page_it_finds_what_axe_finds(page: Any) -> None:
    page.set_content(BAD)
    plain = all_of(page, AXE_SCRIPT)
    assert all_of(page, HASTENED) == plain
    found = {rule["id"]: len(rule["nodes"]) for rule in plain[0]}
    assert found["color-contrast"] >= 5
    assert {"image-alt", "button-name", "label", "link-name", "list"} <= found.keys()
    assert {rule["id"]: len(rule["nodes"]) for rule in find_violations(page)} == found
    contrast = find_violations(page, "color-contrast")
    assert [len(rule["nodes"]) for rule in contrast] == [found["color-contrast"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_page_of_the_book_it_sees_the_same_colors(page: Any, site: Path, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto((site / "glossary.html").as_uri(), wait_until="networkidle")
    plain = all_of(page, AXE_SCRIPT)
    assert all_of(page, HASTENED) == plain
    (contrast,) = (rule for rule in plain[1] if rule["id"] == "color-contrast")
    assert len(contrast["nodes"]) > 100, "with colors and ratio of each"
