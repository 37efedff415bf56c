"""Where did this pixel come from: the page's sweep is torch's, and what is skipped is zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import OpenWidget

from unet_tutorial import UNet
from unet_tutorial._pictures import read_url
from unet_tutorial.datasets import load
from unet_tutorial.features import stage_features
from unet_tutorial.shapes import receptive_field, trace_shapes
from unet_tutorial.unet import initialize_he
from unet_tutorial.widgets import PixelOrigin
from unet_tutorial.widgets._live import eight_bit, prepare
from unet_tutorial.widgets._pixel_origin import patch_influence, stage_grids, unit_of

LIVE = ".unet-widget-live"
SIDE = 64
pytestmark = pytest.mark.usefixtures("one_thread")


def network(**options: Any) -> UNet:
    torch.manual_seed(0)
    model = UNet(1, 2, **{"base_channels": 4, "depth": 2, **options}).eval()
    initialize_he(model)
    return model


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return load("membranes", n_images=2, size=SIDE).images[0]


@pytest.fixture(scope="module")
def widget(image: np.ndarray) -> PixelOrigin:
    return PixelOrigin.of(network(), image, (20, 40))


# --- theory


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (32, 48)),
        ({"padding": "valid"}, (60, 76)),
        ({"upsampling": "bilinear", "depth": 3}, (32, 40)),
        ({"skip": "none", "depth": 1}, (16, 18)),
    ],
)
def test_places_and_fields_are_those_of_the_real_layers(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    model = network(**options)
    trace = trace_shapes(model, size)
    for stage in stage_grids(model, size):
        name = stage["name"]
        assert stage["places"] == list(trace[name].output[1:])
        for pixel in [(0, 7), (size[0] // 2, size[1] - 1)]:
            at, center, (rows, columns) = unit_of(stage, pixel, size)
            field = receptive_field(model, name, at, size=size)
            assert (rows, columns) == (field.rows, field.columns)
            inside = [
                0 < place < places - 1 for place, places in zip(at, stage["places"], strict=True)
            ]
            for here, middle, free in zip(pixel, center, inside, strict=True):
                assert not free or abs(here - middle) <= stage["step"] / 2


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("skip", ["concat", "none"])
def test_the_output_sees_all_that_the_other_stages_see(padding: str, skip: str) -> None:
    """So patches outside its field, which the page passes over, move nothing in any stage."""
    size = (96, 96) if padding == "same" else (92, 92)
    *others, output = stage_grids(network(depth=3, padding=padding, skip=skip), size)
    for place in range(size[0]):
        _, _, ((first, last), _) = unit_of(output, (place, 0), size)
        for stage in others:
            _, _, ((top, bottom), _) = unit_of(stage, (place, 0), size)
            assert first <= top, (stage["name"], place)
            assert bottom <= last, (stage["name"], place)


# --- measurement


def test_covering_a_patch_moves_the_values_that_far(image: np.ndarray) -> None:
    model = network()
    found = patch_influence(model, image, (20, 40), 16)
    covered = image.copy()
    covered[:, 16:32, 32:48] = image.mean()
    for stage in stage_grids(model, (SIDE, SIDE))[:-1]:  # features hold no output
        (y, x), _, _ = unit_of(stage, (20, 40), (SIDE, SIDE))
        one, two = (stage_features(model, given, stage["name"]) for given in (image, covered))
        moved = np.linalg.norm(two[:, y, x] - one[:, y, x])
        assert moved > 0
        assert found[stage["name"]][1, 2] == pytest.approx(moved, rel=1e-4)


def test_nothing_moves_outside_of_the_field(image: np.ndarray) -> None:
    model = network(base_channels=2)
    found = patch_influence(model, image, (20, 40), 4)
    for stage in stage_grids(model, (SIDE, SIDE)):
        _, _, ((top, bottom), (left, right)) = unit_of(stage, (20, 40), (SIDE, SIDE))
        influence = found[stage["name"]]
        assert influence.shape == (16, 16)
        seen = np.zeros((16, 16), bool)
        seen[top // 4 : bottom // 4 + 1, left // 4 : right // 4 + 1] = True
        assert not influence[~seen].any(), stage["name"]
        assert influence[seen].any(), stage["name"]
        assert not seen.all()


# --- what is stored


def test_the_stored_example_says_what_was_measured(widget: PixelOrigin, image: np.ndarray) -> None:
    model = prepare(network())[0].model
    maps = patch_influence(model, eight_bit(image), (20, 40), 16)
    for name, influence in maps.items():
        stored = np.reshape(widget.found["maps"][name], influence.shape)
        assert stored.max() == 1000
        np.testing.assert_allclose(stored / 1000, influence / influence.max(), rtol=0, atol=5.1e-4)
    assert widget.table().splitlines()[:3] == [
        "value at row 20, column 40 of a 64×64 image, patches of 16 pixels",
        "stage       can depend on  90 % within  in the inner half",
        "enc1                5 × 5            –                  –",
    ]


def test_the_numbers_weigh_pixels_of_the_field() -> None:
    widget = PixelOrigin.of(network(), np.zeros((SIDE, SIDE)), (32, 32))
    stage = next(stage for stage in widget.stages if stage["name"] == "out")
    _, center, ((top, bottom), (left, right)) = unit_of(stage, (32, 32), (SIDE, SIDE))
    sides = bottom - top + 1, right - left + 1
    # Every patch alike: the influence is spread evenly over the field.
    even = {
        "row": 32,
        "column": 32,
        "patch": 16,
        "maps": {s["name"]: [7] * 16 for s in widget.stages},
    }
    widget.found = even
    name, can, within, inner = widget.rows()[-1]
    assert (name, can) == ("out", f"{sides[0]} × {sides[1]}")
    y, x = np.mgrid[top : bottom + 1, left : right + 1]
    needed = 2 * np.maximum(abs(y - center[0]), abs(x - center[1])) + 1
    side = next(n for n in range(1, 200) if (needed <= n).mean() >= 0.9)
    assert within == f"{side} × {side}"
    assert inner == f"{(needed <= max(sides) / 2).mean():.0%}"
    # All in the patch of the value: a square within it holds 90 %.
    own = [0] * 16
    own[2 * 4 + 2] = 5  # rows and columns 32 to 47
    widget.found = {**even, "maps": dict.fromkeys(even["maps"], own)}
    assert int(widget.rows()[-1][2].split()[0]) <= 2 * 16
    # Nothing at all.
    widget.found = {**even, "maps": dict.fromkeys(even["maps"], [0] * 16)}
    assert widget.rows()[-1][2:] == ("–", "–")


def test_mistakes_are_named(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pixel \(64, 3\) is outside the 64×64 image"):
        PixelOrigin.of(network(), image, (64, 3))
    with pytest.raises(ValueError, match="needs 4×4 or more"):
        PixelOrigin.of(network(), image[:, :3, :3])


# --- in a browser


MEASURE = """async ([state, changes]) => {
  const model = UNetBook.staticModel(state);
  const el = document.createElement("div");
  const end = UNetBook.widgets["pixel-origin"](model, el);
  const done = new Promise((done) => model.on("change:found", done));
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  await done;
  await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  const rows = [...el.querySelectorAll("tbody tr")].map((row) =>
    [...row.children].map((cell) => cell.textContent));
  end();
  return [model.get("found"), rows];
}"""


@pytest.mark.parametrize(
    ("options", "pixel", "patch"),
    [
        ({}, (5, 50), 8),
        ({"skip": "add", "upsampling": "bilinear"}, (31, 32), 16),
        ({"padding": "valid", "depth": 1}, (0, 61), 8),  # 60 pixels: the last patches are cut
    ],
)
def test_the_page_measures_what_torch_measures(
    open_widget: OpenWidget,
    image: np.ndarray,
    options: dict[str, Any],
    pixel: tuple[int, int],
    patch: int,
) -> None:
    given = image[:, :62] if options.get("padding") else image
    widget = PixelOrigin.of(network(**options), given)
    page = open_widget(widget)
    page.wait_for_selector(LIVE)
    page.set_default_timeout(30_000)
    row, column = pixel
    column = min(column, widget.size[1] - 1)
    state = {**widget.state(), "row": 30, "column": 30}
    changes = {"row": row, "column": column, "patch": patch}
    found, told = page.evaluate(MEASURE, [state, changes])
    assert {name: found[name] for name in ("row", "column", "patch")} == {**changes}
    example = np.ascontiguousarray(read_url(widget.picture)[None] / np.float32(255))
    twin = patch_influence(prepare(network(**options))[0].model, example, (row, column), patch)
    assert list(twin) == [stage["name"] for stage in widget.stages]
    for name, influence in twin.items():
        mine = np.reshape(found["maps"][name], influence.shape)
        np.testing.assert_allclose(mine, influence, rtol=0, atol=1e-4 * influence.max())
        assert influence.max() > 0
    widget.found = found
    assert told == [list(row) for row in widget.rows()]
    assert page.complaints == []


def test_the_stored_example_stands_before_anything_is_loaded(
    open_widget: OpenWidget, widget: PixelOrigin
) -> None:
    page = open_widget(widget)
    page.wait_for_selector(f"{LIVE} tbody")
    rows = [
        row.locator("th, td").all_inner_texts() for row in page.locator(f"{LIVE} tbody tr").all()
    ]
    assert rows == [list(row) for row in widget.rows()]
    assert page.evaluate("Object.keys(UNetBook.networks)") == []
    address = page.locator(f"{LIVE} canvas").nth(1).evaluate("one => one.toDataURL()")
    assert read_url(address).shape[:2] == (SIDE, SIDE)


def test_click_keys_and_stages(open_widget: OpenWidget, widget: PixelOrigin) -> None:
    page = open_widget(widget)
    page.get_by_label("patch", exact=True).select_option("16")
    box = page.locator(f"{LIVE} canvas").first.bounding_box()
    page.locator(f"{LIVE} canvas").first.click(
        position={"x": box["width"] * 10.5 / SIDE, "y": box["height"] * 50.5 / SIDE}
    )
    page.wait_for_selector("text=row 50, column 10")
    page.get_by_label("row", exact=True).press("ArrowLeft")
    page.get_by_label("column", exact=True).press("ArrowRight")
    page.get_by_label("stage", exact=True).select_option("bottleneck")
    page.get_by_role("button", name="Measure").wait_for()
    page.wait_for_function(
        "() => /^stage bottleneck, .* within \\d/.test("
        "document.querySelector('.unet-spoken').textContent)"
    )
    assert page.locator(f"{LIVE} caption").inner_text() == "row 49, column 11"
    assert "…" not in page.locator(f"{LIVE} tbody").inner_text()
    label = page.locator(f"{LIVE} canvas").nth(1).get_attribute("aria-label")
    assert label.startswith("Influence of patches of 16: stage bottleneck")
    assert page.complaints == []


def test_a_sweep_can_be_stopped_and_leaves_the_page_awake(
    open_widget: OpenWidget, image: np.ndarray
) -> None:
    widget = PixelOrigin.of(network(base_channels=8), image)
    page = open_widget(widget)
    page.wait_for_selector(LIVE)
    page.evaluate(
        """() => {
          window.long = [];
          const note = (list) => window.long.push(...list.getEntries().map((one) => one.duration));
          new PerformanceObserver(note).observe({ entryTypes: ["longtask"] });
        }"""
    )
    page.get_by_label("patch", exact=True).select_option("4")
    page.wait_for_function("() => document.querySelector('[aria-label=patches]').value > 3")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Measure").wait_for()
    far = page.evaluate("document.querySelector('[aria-label=patches]').value")
    page.wait_for_timeout(150)
    assert page.evaluate("document.querySelector('[aria-label=patches]').value") <= far + 1 < 256
    assert "…" in page.locator(f"{LIVE} tbody").inner_text()
    page.get_by_role("button", name="Measure").click()
    page.wait_for_function("() => document.querySelector('[aria-label=patches]').value > 10")
    assert page.evaluate("Math.max(0, ...window.long)") <= 50
    assert page.complaints == []
