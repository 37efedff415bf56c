"""The playground bends as the package does: the field, the mirrored border, the labels."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from conftest import OpenWidget

from unet_tutorial._pictures import read_url
from unet_tutorial.augmentation import deform, elastic_displacement, interpolate_displacement
from unet_tutorial.widgets import ElasticPlayground, site_script

RANDOM = np.random.default_rng(0)
IMAGE = np.kron(RANDOM.random((6, 8)), np.ones((8, 8))).astype(np.float32)  # 48×64
LABELS = (IMAGE < 0.4).astype(np.uint8)


def playground(**options: Any) -> ElasticPlayground:
    return ElasticPlayground(IMAGE, LABELS, **options)


def drawn_by_the_package(seed: int, std: float, size: tuple[int, int]) -> np.ndarray:
    chance = torch.Generator().manual_seed(seed)
    return elastic_displacement(1, size, std=std, generator=chance)[0].numpy()


# ---- in Python


def test_a_seed_draws_what_a_training_would_draw():
    for seed, std in ((0, 10.0), (7, 3.5), (123456, 30.0)):
        widget = playground(seed=seed, displacement=std)
        expected = drawn_by_the_package(seed, std, IMAGE.shape)
        assert np.abs(widget.field() - expected).max() < 0.01  # stored with few decimals
        image, labels = widget.warped()
        bent, marks = deform(
            torch.from_numpy(IMAGE)[None, None],
            torch.from_numpy(LABELS)[None],
            torch.from_numpy(widget.field())[None],
        )
        assert (image == bent[0, 0].numpy()).all()
        assert (labels == marks[0].numpy()).all()


def test_seed_and_deviation_draw_anew_and_a_hand_changes_one_vector():
    widget = playground()
    first = widget.handles
    widget.seed = 1
    assert widget.handles != first
    widget.seed = 0
    assert widget.handles == first
    widget.displacement = 20.0
    assert np.allclose(widget.handles, 2 * np.array(first), atol=2e-3)
    widget.seed = 500  # not among those stored at first
    assert np.abs(widget.field() - drawn_by_the_package(500, 20.0, IMAGE.shape)).max() < 0.01
    moved = [[0.0, 0.0]] * 9
    moved[0] = [5.0, -2.0]
    widget.handles = moved
    assert np.allclose(widget.field()[:, 0, 0], (5, -2))
    assert np.allclose(widget.field()[:, -1, -1], 0, atol=1e-6)
    assert ElasticPlayground(IMAGE, handles=moved).handles == moved


def test_wrong_pixels_are_those_where_the_label_stayed():
    widget = playground(displacement=6)
    _, bent = widget.warped()
    widget.bend_labels = False
    _, stayed = widget.warped()
    assert (stayed == LABELS).all()
    assert widget.wrong() == (bent != LABELS).sum() > 0
    assert f"stayed: {100 * widget.wrong() / LABELS.size:.1f} %" in widget.table()
    widget.displacement = 0.0
    assert widget.wrong() == 0


def test_without_labels_there_is_nothing_to_be_wrong():
    widget = ElasticPlayground(IMAGE)
    assert widget.warped()[1] is None
    assert "labels" not in widget.table() + widget.still()


def test_an_8_bit_image_with_a_channel_is_taken():
    values = np.round(255 * IMAGE).astype(np.uint8)
    image, _ = ElasticPlayground(values[None], displacement=0).warped()
    assert np.allclose(image, values / 255, atol=1e-6)


def test_output_is_the_same_every_time_and_small():
    one, two = playground(), playground()
    assert one.static_html() == two.static_html()
    assert one.table() == two.table()
    assert len(re.sub(r"data:image/[^\"]*", "", one.static_html())) < 15_000
    assert one.static_html().count(one.image) == 1  # shared with the page without script
    assert len(one.table().splitlines()) == 5
    assert json.loads(json.dumps(one.state())) == one.state()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((300, 64))}, r"2 to 256 pixels .* got \(300, 64\): cut out a part"),
        ({"image": np.zeros((2, 48, 64))}, r"or \(1, H, W\)"),
        ({"image": IMAGE * np.nan}, "values from 0 to 1"),
        ({"image": IMAGE * 255}, "values from 0 to 1"),
        ({"labels": LABELS[:-1]}, r"expected labels of shape \(48, 64\).*got \(47, 64\)"),
        ({"labels": LABELS - 0.5}, "whole numbers from 0 to 255"),
        ({"displacement": np.nan}, "from 0 to 30 pixels, got nan"),
        ({"displacement": 31.0}, "displacement"),
        ({"handles": [[1.0, 2.0]]}, "nine pairs"),
        ({"handles": [[np.nan, 2.0]] * 9}, "nine pairs"),
        ({"handles": [[100.0, 2.0]] * 9}, "from -99 to 99"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str):
    with pytest.raises((ValueError, traitlets.TraitError), match=message):
        ElasticPlayground(**{"image": IMAGE, "labels": LABELS, **change})


# ---- in a browser


STAGE = ".unet-widget-live canvas"
BEND = """([handles, image, labels, size]) => {
  const { field, picture, marks } = UNetBook.bend(handles, image, labels, size);
  return [field.map((axis) => [...axis]), [...picture], [...marks]];
}"""


@pytest.fixture(scope="module")
def engine(browser: Any) -> Any:
    """A page that holds the front end."""
    page = browser.new_page()
    page.add_script_tag(content=site_script())
    return page


@pytest.mark.parametrize("size", [(48, 64), (33, 20), (2, 9), (40, 40)])
def test_the_page_bends_as_the_package_does(engine: Any, size: tuple[int, int]):
    height, width = size
    for std in (3, 12, 45):  # the last looks far beyond the border, several times mirrored
        handles = np.clip(std * RANDOM.standard_normal((9, 2)), -99, 99).astype(np.float32)
        image = RANDOM.integers(0, 256, (height, width, 4))
        labels = RANDOM.integers(0, 5, size)
        given = [handles.tolist(), image.ravel().tolist(), labels.ravel().tolist(), list(size)]
        field, picture, marks = map(np.array, engine.evaluate(BEND, given))
        coarse = torch.from_numpy(handles).T.reshape(1, 2, 3, 3)
        expected = interpolate_displacement(coarse, size)
        assert np.abs(field.reshape(2, *size) - expected[0].numpy()).max() <= 1e-4
        values, bent = deform(
            torch.from_numpy(image).float().permute(2, 0, 1)[None],
            torch.from_numpy(labels)[None],
            expected,
        )
        shown = values[0].permute(1, 2, 0).numpy()
        assert np.abs(picture.reshape(shown.shape) - shown).max() < 0.5 + 0.05  # whole grays
        places = np.indices(size) + field.reshape(2, *size)
        clear = (np.abs(places % 1 - 0.5) > 1e-3).all(axis=0)  # else a matter of rounding
        assert clear.mean() > 0.9
        assert (marks.reshape(size) == bent[0].numpy())[clear].all()


# A copy is read: a canvas that is read twice makes Chromium give advice.
READ = """() => {
  const [one, copy] = [document.querySelector("canvas"), document.createElement("canvas")];
  [copy.width, copy.height] = [one.width, one.height];
  const pen = copy.getContext("2d");
  pen.drawImage(one, 0, 0);
  return [...pen.getImageData(0, 0, one.width, one.height).data];
}"""
ERRORS = ((224, 123, 0), (47, 111, 222))  # missed, invented


def says(page: Any, words: str) -> str:
    page.wait_for_function(
        f"words => document.querySelector('{STAGE}').ariaLabel?.includes(words)", arg=words
    )
    return str(page.locator(STAGE).get_attribute("aria-label"))


def handles(page: Any) -> list[list[float]]:
    labels = page.eval_on_selector_all("g[role=button]", "all => all.map(one => one.ariaLabel)")
    return [[float(value) for value in label.split(": ")[1].split(", ")] for label in labels]


def close(page: Any, widget: ElasticPlayground) -> None:
    """Wait until the page shows the vectors that Python has."""
    expected = [
        ", ".join(f"{value:+.1f}" for value in pair) for pair in np.array(widget.handles) + 0.0
    ]
    page.wait_for_function(
        "words => [...document.querySelectorAll('g[role=button]')].filter((one, k) =>"
        " one.ariaLabel.endsWith(': ' + words[k])).length >= 8",  # one may round the other way
        arg=expected,
    )


def test_button_and_slider_draw_what_python_draws(open_widget: OpenWidget):
    widget = playground(displacement=8)
    page = open_widget(widget)
    close(page, widget)
    page.get_by_role("button", name="draw again").press("Enter")
    page.get_by_text("seed 1", exact=True).wait_for()
    widget.seed = 1
    close(page, widget)
    page.get_by_role("slider").press("ArrowRight")
    widget.displacement = 8.5
    close(page, widget)
    for _ in range(9):
        page.get_by_role("button", name="draw again").press("Enter")
    page.get_by_text("seed 0", exact=True).wait_for()  # the stored ones, round and round
    assert page.complaints == []


def test_the_canvas_shows_the_bent_image(open_widget: OpenWidget):
    widget = ElasticPlayground(IMAGE, displacement=5, seed=3)
    page = open_widget(widget)
    says(page, "The bent image")
    assert not page.get_by_role("checkbox").is_visible()
    seen = page.evaluate(READ)
    source = torch.from_numpy(read_url(widget.image).astype(np.float32)).permute(2, 0, 1)[None]
    marks = torch.zeros(1, *IMAGE.shape)
    expected = deform(source, marks, torch.from_numpy(widget.field())[None])[0][0]
    difference = (
        np.array(seen).reshape(*IMAGE.shape, 4)[..., :3] - expected.permute(1, 2, 0).numpy()
    )
    assert np.abs(difference).max() < 4  # two decoders of JPEG
    assert page.complaints == []


def wrong(page: Any) -> int:
    found = re.search(r"([\d,]+) of 3,072 pixels", says(page, "of 3,072 pixels"))
    assert found
    return int(found[1].replace(",", ""))


def test_labels_that_stay_lie_wrong_and_are_counted(open_widget: OpenWidget):
    widget = playground(displacement=6)
    page = open_widget(widget)
    assert abs(wrong(page) - widget.wrong()) <= 3  # places half-way between two pixels
    assert "none lies wrong" in says(page, "The labels move")

    def marked() -> int:
        colors = np.array(page.evaluate(READ)).reshape(-1, 4)[:, :3]
        return int(sum((colors == color).all(axis=1).sum() for color in ERRORS))

    assert marked() == 0
    page.get_by_role("checkbox", name="bend the labels too").press("Space")
    says(page, "The labels stayed")
    assert marked() == wrong(page)
    assert abs(wrong(page) - widget.wrong()) <= 3
    assert page.complaints == []


def test_a_hand_and_the_keys_pull_at_a_dot(open_widget: OpenWidget):
    page = open_widget(playground(displacement=0))
    says(page, "0 of 3,072 pixels")
    middle = page.get_by_role("button", name="middle middle")
    middle.press("ArrowRight")
    middle.press("ArrowRight")
    middle.press("ArrowUp")
    # The picture follows: what stands there comes from further left and further down.
    page.get_by_role("button", name="middle middle: +1.0, -2.0").wait_for()
    corner = page.get_by_role("button", name="top left")
    box, scale = corner.bounding_box(), page.locator(STAGE).bounding_box()["width"] / 64
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 2 * scale, y + 1 * scale)
    page.mouse.move(x + 6 * scale, y + 4 * scale)
    page.mouse.up()
    page.mouse.move(x, y)
    page.wait_for_timeout(50)
    moved = np.array(handles(page))
    assert np.abs(moved[0] - (-4, -6)).max() < 0.11
    assert (moved[[1, 2, 3, 5, 6, 7, 8]] == 0).all()
    assert wrong(page) > 0
    assert page.complaints == []


def test_python_follows_and_leads(open_widget: OpenWidget):
    """The synchronized state alone makes the page: what a hand has pulled is stored and shown."""
    pulled = [[float(k), -1.5 * k] for k in range(9)]
    page = open_widget(playground(handles=pulled, bend_labels=False))
    says(page, "The labels stayed")
    assert np.allclose(handles(page), pulled)
