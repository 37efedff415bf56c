"""The shape explorer says what torch does, in the page, in JupyterLab, and without script."""

from __future__ import annotations

import json
import random
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accessibility import find_violations
from conftest import WIDE, OpenWidget
from playwright.sync_api import expect

from unet_tutorial import SizeError, UNet
from unet_tutorial.shapes import ShapeTrace, _Recorder, receptive_field
from unet_tutorial.unet import check_size
from unet_tutorial.widgets import ShapeExplorer, explore
from unet_tutorial.widgets._host import site_script

CONFIGURATIONS = 5000
DEPTH_3 = f"{ShapeExplorer(depth=3).trace().parameters:,}"


@pytest.fixture(scope="module")
def engine(browser: Any) -> Any:
    """A page that holds the front end: Chromium's JavaScript."""
    page = browser.new_page()
    page.add_script_tag(content=site_script())
    return page


def draw_options(rng: random.Random) -> dict[str, Any]:
    return {
        "in_channels": rng.choice([1, 2, 3]),
        "num_classes": rng.randint(1, 5),
        "base_channels": rng.choice([1, 2, 3, 8, 16, 64]),
        "depth": rng.randint(1, 6),
        "padding": rng.choice(["same", "valid"]),
        "norm": rng.choice(["", "batch"]),
        "upsampling": rng.choice(["transposed", "bilinear"]),
        "skip": rng.choice(["concat", "add", "none"]),
    }


def build(options: dict[str, Any]) -> UNet:
    rest = {k: v for k, v in options.items() if k not in ("in_channels", "num_classes")}
    rest["norm"] = rest["norm"] or None
    nothing = patch.object(torch.nn.modules.conv._ConvNd, "reset_parameters", lambda layer: None)
    with torch.device("meta"), nothing:  # there are no values to draw
        return UNet(options["in_channels"], options["num_classes"], **rest)


def traced(options: dict[str, Any], size: list[int]) -> list[Any]:
    """Trace a network of one's own: what trace_shapes does, without the copy that it makes."""
    recorder = _Recorder(build(options).eval())
    with torch.no_grad():
        recorder.model(torch.empty(1, options["in_channels"], *size, device="meta"))
    trace = ShapeTrace((options["in_channels"], size[0], size[1]), tuple(recorder.stages))
    return [[*row.values()] for row in trace.as_rows()]


ASK = """
(cases) => JSON.stringify(JSON.parse(cases).map(({ options, size }) => {
  const check = UNetBook.checkSize(...size, options.depth, options.padding);
  if (!check.fits) return { error: check.message, stage: check.stage, nearest: check.nearest };
  const rows = UNetBook.trace(options, ...size).map((s) =>
    [s.name, s.operation, s.output, s.crop, s.parameters, s.multiplyAdds, s.bytes]);
  return { rows, output: check.output };
}))
"""


def answer_of_torch(case: dict[str, Any]) -> dict[str, Any]:
    options, size = case["options"], case["size"]
    try:
        output = check_size(*size, depth=options["depth"], padding=options["padding"])
    except SizeError as error:
        return {"error": str(error), "stage": error.stage, "nearest": error.nearest}
    return {"rows": traced(options, size), "output": output}


def test_the_page_computes_what_torch_computes(engine: Any) -> None:
    rng = random.Random(0)
    cases = []
    for number in range(CONFIGURATIONS):
        options = draw_options(rng)
        size = [rng.randint(0, 700), rng.randint(0, 700)]
        rules = {"depth": options["depth"], "padding": options["padding"]}
        if number % 2:  # half of all sizes fit
            try:
                check_size(*size, **rules)
            except SizeError as error:
                size = list(error.nearest[-1])
        cases.append({"options": options, "size": size})
    expected = [answer_of_torch(case) for case in cases]
    answers = json.loads(engine.evaluate(ASK, json.dumps(cases)))
    assert len(answers) == CONFIGURATIONS
    fitting = sum("rows" in answer for answer in answers)
    assert CONFIGURATIONS / 3 < fitting < CONFIGURATIONS
    for case, answer, truth in zip(cases, answers, expected, strict=True):
        assert answer == json.loads(json.dumps(truth)), case


def test_receptive_fields_are_those_of_the_package(engine: Any) -> None:
    rng = random.Random(1)
    for _ in range(25):
        options = {**draw_options(rng), "base_channels": 1, "depth": rng.randint(1, 4)}
        model = build(options)
        size = [252, 252] if options["padding"] == "valid" else [64, 64]
        if options["padding"] == "valid":
            try:
                check_size(*size, depth=options["depth"], padding="valid")
            except SizeError as error:
                size = list(error.nearest[-1])
        fields = engine.evaluate(
            "([options, size]) => { const stages = UNetBook.trace(options, ...size);"
            " return stages.map(({ name }) => [name, UNetBook.widestField(stages, name)]); }",
            [options, size],
        )
        for name, field in fields:
            assert field == receptive_field(model, name).height, (options, name)


def test_the_message_of_pytorch_is_pytorch_s_own(engine: Any) -> None:
    network = UNet(1, 2, base_channels=1).eval()
    network._check = lambda images: None  # type: ignore[method-assign]
    for up in network.expansive:  # the article's forward, which does not ask either
        up.forward = lambda x1, x2, up=up: up.conv(torch.cat((up.up(x1), x2), dim=1))
    rng = random.Random(2)
    sizes = [(39, 39), (40, 40), (572, 572), (16, 48)]
    sizes += [(rng.randint(16, 80), rng.randint(16, 80)) for _ in range(25)]
    with torch.no_grad():
        for size in sizes:
            said = engine.evaluate("(size) => UNetBook.torchVerdict(...size, 4)", list(size))
            try:
                network(torch.zeros(1, 1, *size))
                message = ""
            except RuntimeError as error:
                message = str(error)
            assert said["message"] == message, size


# ---- in Python


def test_bundle_has_the_view_the_page_and_the_table() -> None:
    explorer = ShapeExplorer(height=572, width=572, padding="valid")
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"] == explorer.table()
    assert "31,030,658" in data["text/html"]
    again, _ = ShapeExplorer(height=572, width=572, padding="valid")._repr_mimebundle_()
    assert again["text/html"] == data["text/html"], "the stored output must not change by itself"


def test_sizes_that_do_not_fit_are_told_not_raised() -> None:
    explorer = ShapeExplorer(height=39, width=39)
    assert "39 is odd" in explorer.table()
    assert "39 is odd" in explorer.static_html()


def test_an_explorer_of_a_network_has_its_options() -> None:
    model = UNet(3, 5, base_channels=8, depth=2, norm="batch", skip="add", dropout=0.1)
    explorer = explore(model, (48, 64), view="bottleneck")
    assert explorer.model().options == {**model.options, "dropout": 0.0}
    assert (explorer.height, explorer.width, explorer.in_channels) == (48, 64, 3)
    assert "dec1" not in explorer.still()


# ---- in a page without a kernel


def test_hand_and_keyboard_change_the_network(open_widget: OpenWidget) -> None:
    page = open_widget(ShapeExplorer())
    totals = page.get_by_text("All: ")
    assert "31,030,658 parameters" in totals.inner_text()
    page.get_by_role("slider", name="depth").press("ArrowLeft")
    page.get_by_text(f"All: {DEPTH_3}").first.wait_for()
    page.get_by_role("button", name="paper, 572").click()
    page.get_by_text("572×572 → 388×388").wait_for()
    page.get_by_role("button", name="skip1").click()
    page.get_by_text("88, 88").first.wait_for()
    page.get_by_role("button", name="skip1").press("End")
    page.get_by_text("nn.Conv2d(64, 2, kernel_size=1)").wait_for()
    page.get_by_role("button", name="out,").press("ArrowLeft")
    page.get_by_text('UpSampling(128, 64, padding="valid")').first.wait_for()
    assert 'UNet(1, 2, padding="valid")' in page.locator("code").last.inner_text()
    assert page.complaints == []


def test_a_size_that_does_not_fit_breaks_the_joint_and_can_be_repaired(
    open_widget: OpenWidget,
) -> None:
    page = open_widget(ShapeExplorer())
    for name in ("height", "width"):
        page.get_by_role("spinbutton", name=name).fill("39")
    page.get_by_text("Expected size 8 but got size 9").wait_for()
    assert (
        page.get_by_role("button", name="skip3, copy and concatenate")
        .get_attribute("aria-label")
        .endswith("does not fit")
    )
    page.get_by_role("button", name="interpolate").click()
    page.get_by_text("39×39 → 39×39").wait_for()
    page.get_by_role("button", name="crop to 32×32").click()
    page.get_by_text("32×32 → 32×32").wait_for()
    page.get_by_role("spinbutton", name="height").fill("33")
    page.get_by_role("button", name="pad to 48×32").click()
    page.get_by_text("48×32 → 48×32").wait_for()
    assert page.complaints == []


def test_the_address_holds_the_state(open_widget: OpenWidget) -> None:
    page = open_widget(ShapeExplorer())
    page.get_by_role("slider", name="depth").press("ArrowLeft")
    page.get_by_text(f"All: {DEPTH_3}").first.wait_for()
    page.wait_for_function("() => location.hash.includes('depth:3')")
    address = page.url
    again = open_widget(ShapeExplorer(), hash="#" + address.split("#")[1])
    again.get_by_text(f"All: {DEPTH_3}").first.wait_for()


def test_the_folded_table_is_that_of_the_network(open_widget: OpenWidget) -> None:
    page = open_widget(ShapeExplorer())
    rows = page.locator(".unet-widget-live details tbody tr")
    expect(rows).to_have_count(4 * 5 + 2)  # folded: for a printer
    depth = page.get_by_role("slider", name="depth")
    depth.press("ArrowLeft")
    page.wait_for_timeout(50)
    page.get_by_text("all stages as a table").click()
    depth.press("ArrowRight")
    depth.press("ArrowRight")
    expect(rows).to_have_count(5 * 5 + 2)
    page.wait_for_timeout(600)
    expect(rows).to_have_count(5 * 5 + 2)  # no older one comes late


def test_without_script_the_figure_and_the_table_stand(open_widget: OpenWidget) -> None:
    page = open_widget(ShapeExplorer(), script=False)
    assert page.get_by_role("img", name="The U for an image of 512×512").is_visible()
    assert page.get_by_role("table").is_visible()
    assert page.get_by_role("cell", name="14,157,824").is_visible()


@pytest.mark.parametrize(("theme", "width"), [("light", 900), ("dark", 900), ("light", 320)])
def test_everybody_can_use_it(open_widget: OpenWidget, theme: str, width: int) -> None:
    page = open_widget(ShapeExplorer(height=572, width=572), theme=theme, width=width)
    page.locator(".unet-verdict").get_by_text("143 is odd").wait_for()
    found = find_violations(page)
    assert [(rule["id"], rule["nodes"][0]["html"][:150]) for rule in found] == []
    assert page.evaluate(WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
