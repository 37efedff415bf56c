"""The comparison shows the given predictions, and exactly their wrong pixels."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from conftest import OpenWidget
from PIL import Image

from unet_tutorial._pictures import data_url, overlay_url, read_url
from unet_tutorial.metrics import pixel_error
from unet_tutorial.widgets._skip_comparison import SkipComparison

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.random((1, 48, 80), np.float32)
LABEL = (RANDOM.random((48, 80)) < 0.3).astype(np.uint8)
PREDICTIONS = {
    "concat": np.clip(LABEL + RANDOM.normal(0, 0.2, LABEL.shape), 0, 1),
    "add": np.clip(LABEL + RANDOM.normal(0, 0.3, LABEL.shape), 0, 1),
    "none": np.clip(LABEL + RANDOM.normal(0, 0.6, LABEL.shape), 0, 1).astype(np.float16),
}


def comparison() -> SkipComparison:
    return SkipComparison.of(IMAGE, LABEL, PREDICTIONS)


def rgba(address: str) -> np.ndarray:
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1])))
    return np.asarray(picture.convert("RGBA"))


def test_shares_are_those_of_the_metrics():
    for name, wrong, missed, invented in comparison().rows():
        found = PREDICTIONS[name] > 0.5
        assert wrong == f"{pixel_error(found, LABEL):.1%}"
        assert missed == f"{((LABEL == 1) & ~found).mean():.1%}"
        assert invented == f"{((LABEL == 0) & found).mean():.1%}"


def test_wrong_pixels_are_colored_and_no_others():
    for network in comparison().networks:
        found = PREDICTIONS[network["name"]] > 0.5
        picture = rgba(network["wrong"])
        right = found == (LABEL == 1)
        assert ((picture[..., 3] == 0) == right).all()
        assert (picture[(LABEL == 1) & ~found] == (224, 123, 0, 255)).all()
        assert (picture[(LABEL == 0) & found] == (47, 111, 222, 255)).all()


def test_maps_are_stored_dark_where_membrane_is_likely():
    for network in comparison().networks:
        shown = read_url(network["map"]) / 255
        half_a_step = 1 / 2 / 31 + 1 / 255  # of 32 grays, rounded to bytes
        assert np.abs(shown - (1 - PREDICTIONS[network["name"]])).max() < half_a_step
    assert (read_url(comparison().label) == np.where(LABEL, 0, 255)).all()


def test_any_number_of_networks_from_two():
    two = SkipComparison.of(IMAGE[0], LABEL, {"a": LABEL, "b": 1 - LABEL})
    assert (two.left, two.right) == ("a", "b")
    assert two.rows()[0][1:] == ("0.0%", "0.0%", "0.0%")
    assert two.rows()[1][1] == "100.0%"
    many = SkipComparison.of(IMAGE, LABEL, {f"net {k}": LABEL for k in range(5)})
    assert (many.left, many.right, len(many.table().splitlines())) == ("net 0", "net 4", 6)


def test_output_is_the_same_every_time_and_small():
    one, two = comparison(), comparison()
    assert one.static_html() == two.static_html()
    assert one.table() == two.table()
    assert json.loads(json.dumps(one.state())) == one.state()
    text = one.still()
    assert text.count("<img") == 2 + 2 * 3
    assert len(re.sub(r'src="[^"]*"', "", text)) < 15_000
    assert "<script" not in text
    named = SkipComparison.of(IMAGE, LABEL, {"<b>": LABEL, "c": LABEL}).still()
    assert "<b>" not in named
    assert "&lt;b&gt;" in named


def test_a_part_of_the_books_size_is_not_heavy():
    large = np.tile(LABEL, (6, 4))[:256, :256].astype(np.float32)
    smooth = {name: np.clip(0.1 + 0.8 * large, 0, 1) for name in ("concat", "add", "none")}
    assert len(SkipComparison.of(large, large, smooth).static_html()) < 400_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": {"concat": LABEL}}, r"got 1 prediction\(s\): a comparison needs two"),
        ({"predictions": {"a": LABEL, "b": LABEL[1:]}}, r"b: expected .* got \(47, 80\)"),
        ({"predictions": {"a": LABEL, "b": LABEL * np.nan}}, "b: expected probabilities from 0"),
        ({"predictions": {"a": LABEL, "b": LABEL * 255}}, "b: expected probabilities from 0"),
        ({"image": IMAGE[:, 1:]}, "cut the same part out of both"),
        ({"image": IMAGE * np.nan}, "expected a finite image"),
        ({"label": LABEL[None]}, r"expected a label of shape \(H, W\)"),
        ({"label": np.zeros((512, 512))}, r"at most 384 pixels .* take a part"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str):
    given = {"image": IMAGE, "label": LABEL, "predictions": PREDICTIONS, **change}
    with pytest.raises(ValueError, match=message):
        SkipComparison.of(**given)


def test_a_network_that_is_not_there_cannot_be_chosen():
    widget = comparison()
    with pytest.raises(ValueError, match="right must be one of concat, add, none, got 'nine'"):
        widget.right = "nine"
    widget.right = "add"
    assert widget.right == "add"


def test_pictures_are_checked():
    with pytest.raises(ValueError, match=r"take image\[0\]"):
        data_url(np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="got int64"):
        data_url(np.zeros((4, 4), np.int64))
    with pytest.raises(ValueError, match="kind must be"):
        data_url(np.zeros((4, 4)), "gif")  # type: ignore[arg-type]
    exact = RANDOM.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert (read_url(data_url(exact)) == exact).all()
    assert read_url(data_url(exact, "jpeg", side=4)).shape == (3, 4, 3)
    assert (rgba(overlay_url(np.array([[0, 2]]), ["#000", "#00f"]))[0, 1] == (0, 0, 255, 255)).all()


# --- in a browser


STAGE = ".unet-widget-live [role=img]"


def says(page: Any, words: str) -> None:
    page.wait_for_function(
        f"words => document.querySelector('{STAGE}').ariaLabel.includes(words)", arg=words
    )


def seen(page: Any) -> np.ndarray:
    """Read the middles of the stage's pixels off the screen."""
    page.wait_for_timeout(150)  # until pictures are decoded
    shot = Image.open(io.BytesIO(page.locator(STAGE).screenshot())).convert("RGB")
    picture = np.asarray(shot).astype(int)
    height, width = LABEL.shape
    rows = ((np.arange(height) + 0.5) * picture.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * picture.shape[1] / width).astype(int)
    return picture[rows][:, columns]


def test_the_border_separates_the_two_networks(open_widget: OpenWidget):
    page = open_widget(comparison())
    says(page, "left: concat, ")
    shown = {name: 255 * (1 - prediction) for name, prediction in PREDICTIONS.items()}
    picture = seen(page)[..., 0]
    assert np.abs(picture[:, :38] - shown["concat"][:, :38]).max() < 5  # 32 grays
    assert np.abs(picture[:, 42:] - shown["none"][:, 42:]).max() < 5  # 32 grays

    slider = page.get_by_role("slider", name="wipe")
    slider.focus()
    page.keyboard.press("Home")
    says(page, "Border at 0%")
    assert np.abs(seen(page)[:, 2:, 0] - shown["none"][:, 2:]).max() < 5  # 32 grays
    page.keyboard.press("End")
    says(page, "Border at 100%")
    page.get_by_role("combobox", name="left").select_option("add")
    says(page, "left: add, ")
    assert np.abs(seen(page)[:, :-2, 0] - shown["add"][:, :-2]).max() < 5  # 32 grays
    assert page.complaints == []


def test_wrong_pixels_are_shown_over_the_pale_image(open_widget: OpenWidget):
    widget = comparison()
    page = open_widget(widget)
    toggle = page.get_by_role("button", name="wrong pixels")
    assert toggle.get_attribute("aria-pressed") == "false"
    toggle.focus()
    page.keyboard.press("Enter")
    says(page, "Wrong pixels, left: concat")
    assert toggle.get_attribute("aria-pressed") == "true"
    page.get_by_role("slider", name="wipe").fill("0")
    says(page, "Border at 0%")
    picture, found = seen(page)[:, 2:], (PREDICTIONS["none"] > 0.5)[:, 2:]
    truth = LABEL[:, 2:] == 1
    assert np.abs(picture[truth & ~found] - (224, 123, 0)).max() < 4
    assert np.abs(picture[~truth & found] - (47, 111, 222)).max() < 4
    pale = 255 * 0.35 + 0.65 * read_url(widget.image)[:, 2:].astype(float)
    right = truth == found
    assert np.abs(picture[right][:, 0] - pale[right]).max() < 6
    assert page.complaints == []


def test_the_mouse_moves_the_border_too(open_widget: OpenWidget):
    page = open_widget(comparison())
    box = page.locator(STAGE).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    says(page, "Border at 50%")
    page.mouse.down()
    says(page, "Border at 25%")
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20)
    says(page, "Border at 75%")
    page.mouse.up()
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    assert page.get_by_role("slider", name="wipe").input_value() == "75"
    assert page.complaints == []


def test_numbers_of_all_networks_are_in_a_table(open_widget: OpenWidget):
    widget = comparison()
    page = open_widget(widget)
    rows = page.locator(".unet-widget-live tbody tr").all()
    assert [tuple(row.locator("th, td").all_inner_texts()) for row in rows] == widget.rows()


def test_a_change_is_spoken(open_widget: OpenWidget):
    page = open_widget(comparison())
    page.get_by_role("combobox", name="right").select_option("add")
    page.wait_for_function(
        "document.querySelector('.unet-spoken').textContent.includes('right: add, ')"
    )


def test_a_narrow_screen_scrolls_in_one_direction_only(open_widget: OpenWidget):
    names = ("+ skip connections", "skips added", "+ expansive path")
    long = dict(zip(names, PREDICTIONS.values(), strict=True))
    widget = SkipComparison.of(IMAGE, LABEL, long)
    page = open_widget(widget, width=320)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 320
    page.evaluate("document.querySelector('.unet-widget-live').remove()")
    page.evaluate("document.querySelector('.unet-widget-still').hidden = false")
    assert page.evaluate(width) <= 320
