"""The comparison shows the given predictions, and exactly their wrong pixels."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unet_tutorial.metrics import pixel_error
from unet_tutorial.widgets._host import site_script, style
from unet_tutorial.widgets._images import data_url, overlay_url
from unet_tutorial.widgets._pictures import read_url
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
        assert np.abs(shown - (1 - PREDICTIONS[network["name"]])).max() < 1 / 100
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(
            executable_path=found, args=[*options, "--disable-component-update"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    contexts = []

    def open_page(widget: SkipComparison, **options: Any) -> tuple[Any, list[str]]:
        path = tmp_path / "page.html"
        path.write_text(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Page</title>'
            '<meta name="viewport" content="width=device-width">'
            f'<meta name="color-scheme" content="light dark"><style>{style()}</style></head>'
            f"<body><main><h1>Page</h1>{widget.static_html()}</main>"
            f"<script>{site_script()}</script></body></html>",
            encoding="utf-8",
        )
        options = {"viewport": {"width": 800, "height": 900}, **options}
        contexts.append(browser.new_context(reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


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


def test_the_border_separates_the_two_networks(visit: Any):
    page, complaints = visit(comparison())
    says(page, "left: concat, ")
    shown = {name: 255 * (1 - prediction) for name, prediction in PREDICTIONS.items()}
    picture = seen(page)[..., 0]
    assert np.abs(picture[:, :38] - shown["concat"][:, :38]).max() < 4
    assert np.abs(picture[:, 42:] - shown["none"][:, 42:]).max() < 4

    slider = page.get_by_role("slider", name="wipe")
    slider.focus()
    page.keyboard.press("Home")
    says(page, "Border at 0%")
    assert np.abs(seen(page)[:, 2:, 0] - shown["none"][:, 2:]).max() < 4
    page.keyboard.press("End")
    says(page, "Border at 100%")
    page.get_by_role("combobox", name="left").select_option("add")
    says(page, "left: add, ")
    assert np.abs(seen(page)[:, :-2, 0] - shown["add"][:, :-2]).max() < 4
    assert complaints == []


def test_wrong_pixels_are_shown_over_the_pale_image(visit: Any):
    widget = comparison()
    page, complaints = visit(widget)
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
    assert complaints == []


def test_the_mouse_moves_the_border_too(visit: Any):
    page, complaints = visit(comparison())
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
    assert complaints == []


def test_numbers_of_all_networks_are_in_a_table(visit: Any):
    widget = comparison()
    page, _ = visit(widget)
    rows = page.locator(".unet-widget-live tbody tr").all()
    assert [tuple(row.locator("th, td").all_inner_texts()) for row in rows] == widget.rows()


def test_a_change_is_spoken(visit: Any):
    page, _ = visit(comparison())
    page.get_by_role("combobox", name="right").select_option("add")
    page.wait_for_function(
        "document.querySelector('.unet-spoken').textContent.includes('right: add, ')"
    )


def test_without_script_everything_is_visible(visit: Any):
    page, _ = visit(comparison(), java_script_enabled=False)
    assert page.locator("img").count() == 8
    assert all(image.is_visible() for image in page.locator("img").all())
    assert page.get_by_role("table").is_visible()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_views_are_accessible(visit: Any, scheme: str, live: bool):
    from axe_playwright_python.sync_playwright import Axe

    page, complaints = visit(comparison(), color_scheme=scheme)
    if not live:
        page.evaluate(
            "() => { document.querySelector('.unet-widget-live').remove();"
            "document.querySelector('.unet-widget-still').hidden = false; }"
        )
    else:
        page.get_by_role("button", name="wrong pixels").click()
    violations = Axe().run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in violations] == []
    assert complaints == []


def test_a_narrow_screen_scrolls_in_one_direction_only(visit: Any):
    names = ("+ skip connections", "skips added", "+ expansive path")
    long = dict(zip(names, PREDICTIONS.values(), strict=True))
    widget = SkipComparison.of(IMAGE, LABEL, long)
    page, _ = visit(widget, viewport={"width": 320, "height": 700})
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 320
    page.evaluate("document.querySelector('.unet-widget-live').remove()")
    page.evaluate("document.querySelector('.unet-widget-still').hidden = false")
    assert page.evaluate(width) <= 320


def test_a_step_of_the_slider_is_drawn_within_a_frame(visit: Any):
    large = np.tile(LABEL, (6, 4))[:256, :256].astype(np.float32)
    noise = RANDOM.random(large.shape)
    widget = SkipComparison.of(noise, large, {"a": noise, "b": noise[::-1], "c": noise})
    page, _ = visit(widget)
    page.wait_for_timeout(300)
    milliseconds = page.evaluate(
        """async () => {
          const slider = document.querySelector("input[type=range]");
          const times = [];
          for (let percent = 0; percent < 50; percent++) {
            let began;
            requestAnimationFrame(() => (began = performance.now()));
            slider.value = percent;
            slider.dispatchEvent(new Event("input"));
            await new Promise((done) => requestAnimationFrame(() => {
              document.querySelector(".unet-widget-live").getBoundingClientRect();
              times.push(performance.now() - began);
              done();
            }));
          }
          return times.sort((a, b) => a - b)[25];
        }"""
    )
    assert 0 < milliseconds < 16
