"""The planner shows exactly the tiles in which `predict` goes through an image."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from typing import Any

import pytest
import torch
import traitlets
from conftest import OpenWidget

from unet_tutorial import UNet, inference
from unet_tutorial.inference import tile_plan
from unet_tutorial.unet import Padding
from unet_tutorial.widgets import TilePlanner, site_script
from unet_tutorial.widgets._tile_planner import PADDINGS, _borders

LIVE = ".unet-widget-live"


@cache
def network(depth: int, padding: Padding) -> UNet:
    with torch.device("meta"):
        return UNet(1, 2, base_channels=1, depth=depth, padding=padding)


# ---- in Python


def test_the_papers_figure_two():
    planner = TilePlanner(1024, 1024)
    numbers = dict(planner.numbers())
    assert numbers["tile, in → kept"] == "572×572 → 388×388"
    assert numbers["not kept on both sides"] == "572 − 388 = 184 = 2·92"
    assert numbers["from tile to tile"] == "384 = 24·16"
    assert numbers["tiles"] == "3×3 = 9"
    assert "388 is no multiple of 2^4 = 16" in planner.reason()
    assert len(planner.plan()) == 9
    assert numbers["the last tile answers for"] == "254×254"
    last = planner.plan()[-1]
    assert last.output_rows[1] - last.output_rows[0] == 254


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "tile": 512},
        {"height": 300, "width": 2000, "depth": 3, "index": 3},
        {"height": 50, "width": 60, "padding": "same", "depth": 2, "tile": 64},
        {"height": 1, "width": 1, "index": 99},
    ],
)
def test_the_plan_is_that_of_the_prediction(options: dict[str, Any]):
    planner = TilePlanner(**options)
    model = network(planner.depth, planner.padding)
    plan = tile_plan(model, (planner.height, planner.width), planner.tile)
    assert planner.plan() == plan
    tile = plan[min(planner.index, len(plan) - 1)]
    numbers = dict(planner.numbers())
    rows, columns = tile.output_rows, tile.output_columns
    assert numbers["this tile answers for"] == (
        f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]}"
    )
    side = [stop - start for start, stop in (tile.input_rows, tile.input_columns)]
    read = len(plan) * side[0] * side[1] / (planner.height * planner.width)
    assert numbers["pixels read per pixel"] == f"{read:.2f}"
    assert numbers["tiles"].endswith(f"= {len(plan)}")


def test_tiles_that_do_not_fit_say_what_the_package_says():
    planner = TilePlanner(tile=500)
    with pytest.raises(ValueError, match="Nearest that work: 492 and 508") as error:
        planner.plan()
    assert planner.table() == str(error.value)
    assert "492 and 508" in planner.still()
    with pytest.raises(traitlets.TraitError, match="padding"):
        TilePlanner(padding="reflect")


def test_output_is_the_same_every_time_and_small():
    one, two = TilePlanner(), TilePlanner()
    assert one.static_html() == two.static_html()
    assert one.table() == two.table()
    most = TilePlanner(2000, 2000, tile=204)
    assert len(most.static_html().encode()) < 15_000
    assert json.loads(json.dumps(one.state())) == one.state()


# ---- in a browser


@pytest.fixture(scope="module")
def engine(browser: Any) -> Any:
    """A page that holds the front end."""
    page = browser.new_page()
    page.add_script_tag(content=site_script())
    return page


ASK = """(cases) => cases.map(([size, depth, padding, tile, border]) => {
  const { axes, near } = UNetBook.tilePlan(size, depth, padding, tile, border);
  return near ?? axes.map(({ spans }) => spans);
})"""


def test_the_page_plans_as_the_package_does(engine: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inference, "_border", cache(inference._border))  # a trace each: slow
    rng = random.Random(0)
    cases: list[Any] = []
    for _ in range(700):
        depth, padding = rng.randint(1, 6), rng.choice(PADDINGS)
        cell, border = 2**depth, _borders()[padding][depth - 1]
        tile = rng.randint(1, 900)
        if rng.random() < 0.8:  # one that works
            tile = 2 * border + cell * rng.randint(1, 30)
            tile += (-4 - tile) % cell if padding == "valid" else 0
        top = rng.choice((5, 100, 1500))
        size = rng.randint(1, top), rng.randint(1, top)
        cases.append((size, depth, padding, tile, border))
    answers = engine.evaluate(ASK, cases)
    right = wrong = 0
    for (size, depth, padding, tile, _), answer in zip(cases, answers, strict=True):
        try:
            plan = tile_plan(network(depth, padding), size, tile)
        except ValueError as error:
            near = re.search(r"work: (.*)\.", str(error))
            smaller, larger = answer
            words = f"{smaller} and {larger}" if smaller else f"{larger}, the smallest"
            assert near
            assert near[1] == words
            wrong += 1
            continue
        rows, columns = answer
        assert [
            [[list(one.input_rows), list(one.output_rows)] for one in plan[:: len(columns)]],
            [[list(one.input_columns), list(one.output_columns)] for one in plan[: len(columns)]],
        ] == answer
        assert len(plan) == len(rows) * len(columns)
        right += 1
    assert right >= 500
    assert wrong >= 50


def shown(page: Any) -> list[tuple[str, str]]:
    rows = page.eval_on_selector_all(
        f"{LIVE} tbody tr",
        "rows => rows.map(row => [...row.children].map(cell => cell.textContent))",
    )
    return [(name, value) for name, value in rows]


def settle(page: Any) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def test_the_page_shows_what_python_says(open_widget: OpenWidget):
    planner = TilePlanner()
    page = open_widget(planner)
    changes: list[dict[str, Any]] = [
        {},
        {"height": 300, "width": 2000},
        {"padding": "same", "tile": 576},
        {"depth": 2, "tile": 128},
        {"height": 90},
        {"padding": "valid", "depth": 1, "width": 90},
        {"tile": 17},
        {"tile": 16, "depth": 3},
    ]
    for change in changes:
        for name, value in change.items():
            setattr(planner, name, value)
            control = page.get_by_label(name, exact=True)
            if name == "padding":
                control.select_option(value)
            else:
                control.fill(str(value))
        settle(page)
        if planner.table().startswith("this network"):
            assert page.locator(f"{LIVE} .unet-verdict").inner_text() == planner.table()
            continue
        assert shown(page) == planner.numbers()
        assert planner.reason() in page.locator(f"{LIVE} figcaption").inner_text()
        drawing = page.locator(f"{LIVE} svg").evaluate("one => one.outerHTML")
        assert re.findall(r'"([^"]*)"', drawing) == re.findall(
            r'"([^"]*)"', planner.still().split("</svg>")[0].split("<svg")[1]
        )
    assert page.complaints == []


def test_buttons_and_clicks_step_through_the_tiles(open_widget: OpenWidget):
    page = open_widget(TilePlanner(index=7))
    step = page.locator(f"{LIVE} output").last
    assert step.inner_text() == "8 of 9"
    for button, expected in (("next", "9 of 9"), ("next", "1 of 9"), ("previous", "9 of 9")):
        page.get_by_role("button", name=button).press("Enter")
        settle(page)
        assert step.inner_text() == expected
    box = page.locator(f"{LIVE} svg rect").first.bounding_box()
    for part, expected in (
        ((0.5, 0.1), "2 of 9"),
        ((0.2, 0.95), "7 of 9"),
        ((0.99, 0.6), "6 of 9"),
    ):
        page.mouse.click(box["x"] + part[0] * box["width"], box["y"] + part[1] * box["height"])
        settle(page)
        assert step.inner_text() == expected
    page.wait_for_function(
        "document.querySelector('.unet-spoken').textContent.includes('answers for rows 386 to 770')"
    )
    # A plan with fewer tiles shows its last one, and goes on from there.
    page.get_by_label("height", exact=True).fill("300")
    settle(page)
    assert step.inner_text() == "3 of 3"
    page.get_by_label("tile", exact=True).fill("500")
    settle(page)
    page.get_by_role("button", name="next").click()
    assert step.inner_text() == ""
    assert page.complaints == []
