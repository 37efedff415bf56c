"""The receptive field widget: theory agrees with the package, measurement with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import OpenWidget

from unet_tutorial import UNet
from unet_tutorial._pictures import read_url
from unet_tutorial.partial import ContractingPath, ThreeConvolutions
from unet_tutorial.shapes import receptive_field
from unet_tutorial.widgets._receptive_field import (
    ReceptiveFieldWidget,
    measure_influence,
    square_that_holds,
)

KINDS: dict[str, dict[str, Any]] = {
    "article": {"depth": 3},
    "notes": {"depth": 2, "norm": "batch", "upsampling": "bilinear"},
    "paper": {"depth": 2, "padding": "valid"},
    "none": {"depth": 2, "skip": "none"},
}


def make(kind: str = "article", pixels: int = 4, **choices: Any) -> ReceptiveFieldWidget:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=4, **KINDS[kind])
    side = 92 if kind == "paper" else 96
    image = np.random.default_rng(0).random((1, side, side), np.float32)
    return ReceptiveFieldWidget.of(model, image, pixels=pixels, **choices)


def test_influence_is_the_gradient_and_stays_within_the_field():
    torch.manual_seed(1)
    model = UNet(1, 2, base_channels=4, depth=2, norm="batch").train()
    image = np.random.default_rng(1).random((1, 48, 64), np.float32)
    [found] = measure_influence(model, image, "out", [(20, 30)])
    given = torch.from_numpy(image)[None].requires_grad_()
    logits = model.eval()(given)[0, :, 20, 30]
    (gradient,) = torch.autograd.grad(logits[1] - logits[0], given)
    assert np.allclose(found, gradient[0, 0].abs().numpy(), rtol=1e-4, atol=1e-9)
    field = receptive_field(model, "out", (20, 30), size=(48, 64))
    rows, columns = np.nonzero(found)
    assert field.rows[0] <= rows.min() <= rows.max() <= field.rows[1]
    assert field.columns[0] <= columns.min() <= columns.max() <= field.columns[1]
    assert not any(module._forward_hooks for module in model.modules())


def test_the_network_stays_in_its_mode_and_gets_no_gradients():
    model = UNet(1, 2, base_channels=2, depth=1, norm="batch").train()
    before = [buffer.clone() for buffer in model.buffers()]
    ReceptiveFieldWidget.of(model, np.random.default_rng(0).random((16, 16)), pixels=2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(map(torch.equal, before, model.buffers()))


@pytest.mark.parametrize("stage", ["enc1", "enc2", "bottleneck", "dec1"])
def test_values_far_apart_share_a_backward_pass_without_a_trace(stage: str):
    torch.manual_seed(2)
    model = UNet(1, 2, base_channels=4, depth=2)
    image = np.random.default_rng(2).random((1, 96, 96), np.float32)
    step = {"enc1": 1, "enc2": 2, "bottleneck": 4, "dec1": 1}[stage]
    pixels = [(y // step, x // step) for y in (10, 50, 85) for x in (12, 48, 90)]
    fields = [receptive_field(model, stage, pixel, size=(96, 96)) for pixel in pixels]
    together = measure_influence(model, image, stage, pixels, fields)
    alone = measure_influence(model, image, stage, pixels)
    assert np.allclose(together, alone, rtol=1e-4, atol=1e-9)


def test_square_holds_the_share_and_the_next_smaller_one_does_not():
    influence = np.random.default_rng(0).random((40, 50))
    center = (17.5, 20.5)
    side = square_that_holds(influence, center)
    held = []
    for tried in (side, side - 2):
        far = (tried - 1) / 2
        rows = slice(max(int(center[0] - far), 0), int(center[0] + far) + 1)
        columns = slice(max(int(center[1] - far), 0), int(center[1] + far) + 1)
        held.append(influence[rows, columns].sum() / influence.sum())
    assert held[0] >= 0.9 > held[1]
    assert square_that_holds(np.zeros((4, 4)), (1, 1)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_stored_maps_are_the_measured_field(kind: str):
    widget = make(kind, pixels=2)
    assert widget.stages[-1] == "out"
    for stage, stored in widget.measured.items():
        for row in range(2):
            for column in range(2):
                widget.row, widget.column = row, column
                (top, bottom), (left, right) = widget._field(stage)
                height, width = bottom - top + 1, right - left + 1
                picture = read_url(stored["maps"][row][column])
                scale = min(48 / max(height, width), 1)
                assert picture.shape == (round(height * scale), round(width * scale))
                assert stored["sides"][row][column] <= 2 * max(height, width)


def test_every_map_lies_in_the_middle_of_the_image():
    for kind in ("article", "paper"):
        widget = make(kind, pixels=3)
        bare = widget._network()
        for stage in ("enc1", "enc2", "bottleneck"):
            stored = widget.measured[stage]
            for row, center in zip(stored["at"][0], stored["centers"][0], strict=True):
                field = receptive_field(bare, stage, (row, row))
                assert sum(field.rows) / 2 == center
        step = {"article": 8, "paper": 4}[kind]
        wished = np.array(widget.grid[0])
        assert np.abs(wished - widget.measured["bottleneck"]["centers"][0]).max() <= step / 2
        assert widget.measured["out"]["centers"][0] == widget.grid[0]


def test_what_is_stored_is_small():
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=4)
    image = np.random.default_rng(0).random((1, 128, 128), np.float32)
    assert len(ReceptiveFieldWidget.of(model, image).static_html()) < 250_000


def test_table_says_both_fields_of_every_stage():
    widget = make(pixels=1)
    assert widget.table().splitlines()[:3] == [
        "value at row 48, column 48 of a 96×96 image",
        "stage       can depend on  90 % within",
        "enc1                5 × 5        5 × 5",
    ]
    assert [row[1] for row in widget.numbers()][:4] == ["5 × 5", "14 × 14", "32 × 32", "68 × 68"]


def test_a_contracting_path_and_silent_channels_are_shown():
    model = ContractingPath(1, 2, base_channels=2, depth=2, bottleneck=True)
    for parameter in model.parameters():
        parameter.data.fill_(-1)
    widget = ReceptiveFieldWidget.of(model, np.ones((32, 32)), pixels=1)
    assert widget.stages == ["enc1", "enc2", "bottleneck"]
    assert [found for _, _, found in widget.numbers()] == ["none"] * 3
    assert "none" in widget.still()


def test_mistakes_are_explained():
    model, image = UNet(1, 2, base_channels=2, depth=2), np.zeros((32, 32))
    with pytest.raises(ValueError, match="from 1 to 8, got 9"):
        ReceptiveFieldWidget.of(model, image, pixels=9)
    with pytest.raises(ValueError, match=r"no stage 'enc3': this network offers enc1, enc2, bott"):
        ReceptiveFieldWidget.of(model, image, stages=["enc3"])
    with pytest.raises(ValueError, match="expected a UNet or a ContractingPath, got ThreeConv"):
        ReceptiveFieldWidget.of(ThreeConvolutions(1, 2, base_channels=2), image)
    with pytest.raises(ValueError, match="Nearest sizes"):
        ReceptiveFieldWidget.of(model, np.zeros((30, 32)))


# --- in a browser


def shown(page: Any) -> dict[str, list[str]]:
    rows = page.eval_on_selector_all(
        ".unet-widget-live tbody tr",
        "rows => rows.map(row => [...row.children].map(cell => cell.textContent))",
    )
    return {row[0].removesuffix(" ◂"): row[1:] for row in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_computes_the_fields_of_the_package(open_widget: OpenWidget, kind: str):
    widget = make(kind)
    page = open_widget(widget)
    for row in range(4):
        page.get_by_label("row", exact=True).fill(str(row))
        for column in (0, 3):
            page.get_by_label("column", exact=True).fill(str(column))
            widget.row, widget.column = row, column
            page.wait_for_function(
                "place => document.querySelector('.unet-widget-live caption')"
                ".textContent.includes(place)",
                arg=widget._place(),
            )
            assert shown(page) == {stage: rest for stage, *rest in widget.numbers()}
    assert page.complaints == []


def test_click_and_keys_choose_place_and_stage(open_widget: OpenWidget):
    widget = make()
    page = open_widget(widget)
    picture = page.locator("svg[role=img]")
    box = picture.bounding_box()
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.9 * box["height"])
    page.wait_for_function("document.querySelector('svg').ariaLabel.includes('row 84, column 12')")
    assert page.get_by_label("row", exact=True).input_value() == "3"
    page.get_by_label("row", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_label("stage", exact=True).select_option("enc2")
    page.wait_for_function("document.querySelector('svg').ariaLabel.includes('enc2 at row 60')")
    label = picture.get_attribute("aria-label")
    assert "can depend on 14 × 14 pixels" in label or "can depend on 14 × 1" in label
    widget.row, widget.column = 2, 0
    (top, bottom), (left, right) = widget._field("enc2")
    drawn = page.evaluate(
        "[...document.querySelectorAll('svg > rect')].slice(1)"
        ".map(r => ['y', 'x', 'height', 'width'].map(name => Number(r.getAttribute(name))))"
    )
    assert drawn[0] == [top, left, bottom - top + 1, right - left + 1]
    (top, bottom), (left, right) = widget._square("enc2")
    assert drawn[1] == [top, left, bottom - top + 1, right - left + 1]
    href = page.get_attribute("svg mask image", "href")
    assert href == widget.measured["enc2"]["maps"][2][0]
    page.wait_for_function("document.querySelector('.unet-spoken').textContent.includes('enc2')")
    assert page.complaints == []


def test_the_influence_is_seen_as_orange(open_widget: OpenWidget):
    from io import BytesIO

    from PIL import Image

    page = open_widget(make(stages=["bottleneck"]))
    page.wait_for_timeout(200)
    pixels = np.asarray(
        Image.open(BytesIO(page.locator("svg[role=img]").screenshot())).convert("RGB"), int
    )
    assert ((pixels[..., 0] - pixels[..., 2]) > 100).sum() > 500
