"""The border-weight laboratory: the page's map is the package's, however the cells are moved."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import traitlets
from conftest import OpenWidget

from unet_tutorial._pictures import read_url
from unet_tutorial.losses import balanced_class_weights
from unet_tutorial.widgets import BorderWeightLab
from unet_tutorial.widgets._host import script

PICTURE = ".unet-widget-live svg[role=img]"


def random_states(count: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    corners = [
        {"gap": gap, "shift": shift, "w0": w0, "sigma": sigma, "balanced": w0 > 0}
        for gap, shift in ((1, -18), (30, 18))
        for w0, sigma in ((0.0, 1.0), (20.0, 15.0))
    ]
    return corners + [
        {
            "gap": int(draw.integers(1, 31)),
            "shift": int(draw.integers(-18, 19)),
            "w0": float(draw.uniform(0, 20)),
            "sigma": float(draw.uniform(1, 15)),
            "balanced": bool(draw.integers(2)),
        }
        for _ in range(count)
    ]


# --- in Python


@pytest.mark.parametrize("balanced", [False, True])
def test_map_is_the_papers_formula_pixel_by_pixel(balanced: bool):
    lab = BorderWeightLab(gap=5, shift=-7, w0=13, sigma=4, balanced=balanced)
    cells = lab.instances()
    classes = balanced_class_weights([(cells > 0) * 1], 2) if balanced else [1, 1]
    found = lab.weight_map()
    assert found.dtype == np.float32
    for row in range(0, 64, 3):
        for column in range(0, 96, 3):
            expected = classes[int(cells[row, column] > 0)]
            if not cells[row, column]:
                one, two = (
                    np.hypot(*(np.argwhere(cells == number) - (row, column)).T).min()
                    for number in (1, 2)
                )
                expected += 13 * np.exp(-((one + two) ** 2) / (2 * 4**2))
            assert found[row, column] == pytest.approx(expected, abs=3e-5)


def test_cells_stay_apart_and_inside_the_picture_wherever_they_go():
    for gap in (1, 30):
        for shift in (-18, 0, 18):
            cells = BorderWeightLab(gap=gap, shift=shift).instances()
            columns = [np.flatnonzero((cells == number).any(axis=0)) for number in (1, 2)]
            assert columns[1].min() - columns[0].max() - 1 == gap
            assert not cells[[0, -1]].any()
            assert not cells[:, [0, -1]].any()
            # No part of a disc lies outside: both are whole.
            assert [int((cells == number).sum()) for number in (1, 2)] == [861, 489]


def test_words_are_counted_from_the_map():
    lab = BorderWeightLab(gap=3, shift=6, sigma=6, balanced=True)
    weights, empty = lab.weight_map().astype(float), lab.instances() == 0
    cell = weights[~empty][0]
    background = weights.min()
    heavy = weights[empty & (weights > 2 * background)]
    further = BorderWeightLab(gap=4, shift=6, sigma=6, balanced=True)
    assert re.findall(r"\d+(?:\.\d+)?", lab.words())[:4] == [
        f"{weights[empty].max():.2f}",
        f"{len(heavy)}",
        f"{background:.2f}",
        f"{heavy.sum() / cell:.0f}",
    ]
    terms = [
        one.weight_map()[one.instances() == 0].max() - one.weight_map().min()
        for one in (lab, further)
    ]
    assert f"by {100 * (1 - terms[1] / terms[0]):.0f} %." in lab.words()


def test_table_has_the_present_gap_among_others():
    lab = BorderWeightLab(gap=5)
    rows = lab.rows()
    assert [row[0] for row in rows] == ["1", "2", "4", "5", "8", "16", "30"]
    largest = [float(row[1]) for row in rows]
    assert largest == sorted(largest, reverse=True)
    here = rows[3]
    assert f"Largest weight in the gap: {here[1]}. {here[2]} pixels" in lab.words()
    assert all(cell in lab.still() for row in rows for cell in row)


def test_still_picture_shows_the_map_and_is_the_same_every_time():
    lab = BorderWeightLab(gap=2, shift=9)
    assert lab.static_html() == BorderWeightLab(gap=2, shift=9).static_html()
    assert lab.static_html() != BorderWeightLab(gap=3, shift=9).static_html()
    address = re.search(r'href="([^"]*)"', lab.still()).group(1)
    steps = read_url(address)
    assert steps.shape == (69, 96)
    assert np.abs(steps[:64] / 63 - lab.weight_map() / 11).max() <= 0.5 / 63 + 1e-6
    assert set(steps[64:66].ravel()) == {64}  # transparent


def test_traits_go_both_ways_and_refuse_what_is_out_of_range():
    lab = BorderWeightLab()
    lab.set_state({"gap": 9, "shift": -3, "w0": 2.5, "sigma": 7, "balanced": True})
    assert lab.get_state(["gap", "shift", "w0", "sigma", "balanced"]) == lab.state()
    before = lab.weight_map()
    lab.sigma = 2
    assert lab.state()["sigma"] == 2
    assert not np.array_equal(before, lab.weight_map())
    for wrong in ({"gap": 0}, {"shift": 19}, {"w0": -1.0}, {"sigma": 0.5}):
        with pytest.raises(traitlets.TraitError):
            BorderWeightLab(**wrong)


def test_its_part_of_the_front_end_is_small():
    assert len(script("border-weight-lab.js").encode()) <= 4_500


# --- in a browser


def values(page: Any) -> dict[str, float]:
    return {
        name: float(page.get_by_label(label, exact=True).input_value())
        for name, label in {"gap": "gap", "shift": "shift down", "w0": "w₀", "sigma": "σ"}.items()
    }


def says(page: Any, lab: BorderWeightLab) -> None:
    """Wait until the page shows the state of this laboratory."""
    page.wait_for_function(
        "words => document.querySelector('.unet-widget-live svg').ariaLabel === words"
        " && document.querySelector('.unet-widget-live > p').textContent.endsWith(words)",
        arg=lab.words(),
    )


def test_the_page_computes_the_map_of_the_package(open_widget: OpenWidget):
    page = open_widget(BorderWeightLab())
    worst = 0.0
    for state in random_states(96):
        lab = BorderWeightLab(**state)
        weights, words = page.evaluate(
            "state => { const { weights, words } = UNetBook.borderWeights(state);"
            " return [JSON.stringify([...weights]), words]; }",
            state,
        )
        found = np.array(json.loads(weights)).reshape(64, 96)
        worst = max(worst, float(np.abs(found - lab.weight_map()).max()))
        assert words == lab.words()
    assert worst <= 1e-5


def test_the_page_paints_the_map_and_draws_its_section(open_widget: OpenWidget):
    lab = BorderWeightLab(gap=6, shift=11, balanced=True)
    page = open_widget(lab)
    weights = lab.weight_map()
    top = weights[32, 22] + 10
    picture = read_url(page.get_attribute(f"{PICTURE} image", "href"))
    assert picture.shape == (69, 96, 4)
    for row, column in ((32, 22), (36, 42), (38, 41), (5, 90)):
        color = page.evaluate(
            "part => UNetBook.viridis(part)", float(weights[row, column]) / float(top)
        )
        assert np.abs(picture[row, column, :3] - color).max() <= 1
    assert (picture[:64, :, 3] == 255).all()
    assert (picture[64:66, :, 3] == 0).all()
    path = page.locator(f"{PICTURE} > path").last.get_attribute("d")
    heights = [99 - float(height) for height in re.findall(r"V([\d.]+)H", path)]
    (row, first, _), (end, last, _) = lab._discs(lab.gap)
    on_line = [
        weights[int(np.floor(row + (end - row) * (x - first) / (last - first) + 0.5)), x]
        for x in range(first, last + 1)
    ]
    assert np.allclose(np.array(heights) * top / 28, on_line, atol=1e-4)
    drawn = re.search(r'd="M0 ([^"]*)"', lab.still()).group(1)
    assert re.findall(r"V[\d.]+", drawn) == [
        f"V{float(height):.2f}" if float(height) != 99 else "V99"
        for height in re.findall(r"V([\d.]+)", path)
    ]
    assert page.complaints == []


def test_keys_and_button_move_and_weigh(open_widget: OpenWidget):
    lab = BorderWeightLab()
    page = open_widget(lab)
    page.get_by_label("gap", exact=True).press("ArrowRight")
    page.get_by_label("shift down", exact=True).press("ArrowLeft")
    page.get_by_label("w₀", exact=True).press("ArrowRight")
    page.get_by_label("σ", exact=True).press("ArrowLeft")
    button = page.get_by_role("button", name="balanced class weights")
    button.press("Enter")
    lab.gap, lab.shift, lab.w0, lab.sigma, lab.balanced = 5, -1, 10.5, 4.5, True
    says(page, lab)
    assert button.get_attribute("aria-pressed") == "true"
    page.wait_for_function(
        "words => document.querySelector('[aria-live=polite]').textContent === words",
        arg=lab.words(),
    )


def test_the_mouse_drags_the_right_cell_within_its_limits(open_widget: OpenWidget):
    lab = BorderWeightLab()
    page = open_widget(lab)
    box = page.locator(f"{PICTURE} circle").last.bounding_box()
    pixel = page.locator(PICTURE).bounding_box()["width"] / 96
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 7 * pixel, y - 5 * pixel, steps=4)
    lab.gap, lab.shift = 11, -5
    says(page, lab)
    assert values(page) == {"gap": 11, "shift": -5, "w0": 10, "sigma": 5}
    page.mouse.move(x - 60 * pixel, y + 60 * pixel, steps=4)  # beyond both limits
    page.mouse.up()
    page.mouse.move(x, y)  # let go: nothing follows
    lab.gap, lab.shift = 1, 18
    says(page, lab)
    assert values(page) == {"gap": 1, "shift": 18, "w0": 10, "sigma": 5}
    assert page.complaints == []


def test_a_finger_drags_it_too(open_widget: OpenWidget):
    lab = BorderWeightLab()
    page = open_widget(lab, width=320)
    box = page.locator(f"{PICTURE} circle").last.bounding_box()
    pixel = page.locator(PICTURE).bounding_box()["width"] / 96
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for step in range(5):
        points = [{"x": x + 2 * step * pixel, "y": y + 3 * step * pixel}]
        kind = "touchMove" if step else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    lab.gap, lab.shift = 12, 12
    says(page, lab)
    assert page.evaluate("scrollY") == 0


def test_what_python_sets_is_drawn(open_widget: OpenWidget):
    page = open_widget(BorderWeightLab())
    lab = BorderWeightLab(gap=2, shift=4, w0=6, sigma=3, balanced=True)
    page.evaluate(
        """([before, after]) => {
          const model = UNetBook.staticModel(before);
          const el = document.createElement("div");
          el.className = "unet-widget-live";
          document.querySelector(".unet-widget-live").replaceWith(el);
          UNetBook.widgets["border-weight-lab"](model, el);
          for (const name in after) model.set(name, after[name]);
        }""",
        [BorderWeightLab().state(), lab.state()],
    )
    says(page, lab)
    assert values(page) == {"gap": 2, "shift": 4, "w0": 6, "sigma": 3}
