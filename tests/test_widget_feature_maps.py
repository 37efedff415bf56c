"""The feature maps widget shows the network's real maps, in the U, by mouse and keyboard."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from conftest import OpenWidget

from unet_tutorial import UNet
from unet_tutorial._pictures import read_url
from unet_tutorial.features import stage_features
from unet_tutorial.partial import ContractingPath, ThreeConvolutions
from unet_tutorial.widgets._feature_maps import FeatureMaps

IMAGE = np.random.default_rng(0).random((1, 64, 96), np.float32)


def network(**options: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(1, 2, **{"base_channels": 4, "depth": 2, **options})


def test_stages_come_in_the_order_in_which_they_run():
    widget = FeatureMaps.of(network(), IMAGE)
    assert [(stage["name"], *stage["shape"]) for stage in widget.stages] == [
        ("enc1", 4, 64, 96),
        ("enc2", 8, 32, 48),
        ("bottleneck", 16, 16, 24),
        ("dec2", 8, 32, 48),
        ("dec1", 4, 64, 96),
    ]
    assert (widget.stage, widget.channel) == ("enc1", widget.stages[0]["maps"][0]["channel"])


def test_the_stored_maps_are_those_that_vary_most():
    model = network()
    widget = FeatureMaps.of(model, IMAGE, channels=3)
    for stage in widget.stages:
        features = stage_features(model, IMAGE, stage["name"])
        spread = features.var(axis=(1, 2))
        chosen = [one["channel"] for one in stage["maps"]]
        assert len(chosen) == 3
        assert chosen == sorted(chosen)
        assert set(chosen) == set(np.argsort(-spread, kind="stable")[:3].tolist())
        assert stage["silent"] == int((features == 0).all(axis=(1, 2)).sum())
        for one in stage["maps"]:
            values = features[one["channel"]]
            assert one["range"] == pytest.approx([values.min(), values.max()], rel=0.01)


def test_a_small_map_is_stored_to_a_32nd_of_its_range():
    model = network()
    stage = FeatureMaps.of(model, IMAGE).stages[2]
    sheet = read_url(stage["sheet"]) / 255
    for k, one in enumerate(stage["maps"]):
        values = stage_features(model, IMAGE, "bottleneck")[one["channel"]]
        least, most = values.min(), values.max()
        expected = (values - least) / ((most - least) or 1)
        assert (
            np.abs(sheet[:, k * 24 : (k + 1) * 24] - expected).max() < 0.5 / 31 + 0.5 / 255 + 1e-6
        )
    assert stage["maps"][0]["words"].startswith("16×24 values from ")


def test_a_large_map_is_averaged_and_says_so():
    stage = FeatureMaps.of(network(), IMAGE).stages[0]
    assert stage["side"] == [43, 64]
    assert stage["maps"][0]["words"].endswith("drawn as means at 43×64")


def test_what_is_stored_is_small():
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=8)
    image = np.random.default_rng(0).random((1, 128, 128), np.float32)
    text = FeatureMaps.of(model, image).static_html()
    assert len(text) < 250_000
    assert text.count("<img") == 10


def test_table_lists_the_stages():
    lines = FeatureMaps.of(network(), IMAGE, channels=2).table().splitlines()
    assert lines[0].split("  ")[0] == "stage"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["enc1", "4×64×96"],
        ["enc2", "8×32×48"],
        ["bottleneck", "16×16×24"],
        ["dec2", "8×32×48"],
        ["dec1", "4×64×96"],
    ]


@pytest.mark.parametrize("bottleneck", [True, False])
def test_half_a_u_and_unpadded_networks_are_shown(bottleneck: bool):
    path = ContractingPath(1, 2, base_channels=2, depth=2, bottleneck=bottleneck)
    names = [stage["name"] for stage in FeatureMaps.of(path, IMAGE).stages]
    assert names == ["enc1", "enc2", *["bottleneck"] * bottleneck]
    paper = FeatureMaps.of(network(padding="valid"), IMAGE)
    assert paper.stages[-1]["shape"] == [4, 64, 96]


def test_constant_maps_and_mistakes():
    model = network()
    for parameter in model.parameters():
        parameter.data.zero_()
    widget = FeatureMaps.of(model, IMAGE)
    assert widget.stages[0]["silent"] == 4
    assert not read_url(widget.stages[0]["sheet"]).any()
    with pytest.raises(ValueError, match="from 1 to 12, got 0"):
        FeatureMaps.of(model, IMAGE, channels=0)
    with pytest.raises(ValueError, match="expected a UNet or a ContractingPath, got ThreeConv"):
        FeatureMaps.of(ThreeConvolutions(1, 2, base_channels=2), IMAGE)
    with pytest.raises(ValueError, match="Nearest sizes"):
        FeatureMaps.of(model, IMAGE[:, :62])


# --- in a browser


PIXELS = """() => {
  const canvas = document.querySelector("canvas[role=img]");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, [...data]];
}"""


def drawn(page: Any) -> np.ndarray:
    height, width, data = page.evaluate(PIXELS)
    return np.array(data).reshape(height, width, 4)


def wait_for(page: Any, stage: str, channel: int) -> None:
    page.wait_for_function(
        "title => document.querySelector('canvas[role=img]').ariaLabel.includes(title)",
        arg=f"{stage}, channel {channel}:",
    )


def test_a_map_opens_in_viridis(open_widget: OpenWidget):
    widget = FeatureMaps.of(network(), IMAGE)
    page = open_widget(widget)
    stage = widget.stages[2]
    channel = stage["maps"][3]["channel"]
    page.get_by_role("button", name=f"bottleneck, channel {channel}", exact=True).click()
    wait_for(page, "bottleneck", channel)
    page.wait_for_timeout(200)
    values = read_url(stage["sheet"])[:, 3 * 24 : 4 * 24] / 255
    expected = matplotlib.colormaps["viridis"](values)[..., :3] * 255
    seen = drawn(page)
    assert seen.shape == (16, 24, 4)
    assert (seen[..., 3] == 255).all()
    assert np.abs(seen[..., :3] - expected).max() < 12  # ten colors and straight lines between
    assert stage["maps"][3]["words"] in page.locator(".unet-widget-live p").all_text_contents()
    pressed = page.locator("button[aria-pressed=true]")
    assert pressed.get_attribute("aria-label") == f"bottleneck, channel {channel}"
    assert page.complaints == []


def test_arrow_keys_walk_through_the_u(open_widget: OpenWidget):
    widget = FeatureMaps.of(network(), IMAGE, channels=3)
    page = open_widget(widget)
    channels = [[one["channel"] for one in stage["maps"]] for stage in widget.stages]
    page.keyboard.press("Tab")  # all maps are one stop
    for key, stage, k in [
        ("ArrowRight", 0, 1),
        ("ArrowDown", 1, 1),
        ("ArrowRight", 1, 2),
        ("ArrowRight", 2, 0),
        ("ArrowDown", 3, 0),
        ("ArrowUp", 2, 0),
        ("ArrowLeft", 1, 2),
    ]:
        page.keyboard.press(key)
        name, channel = widget.stages[stage]["name"], channels[stage][k]
        wait_for(page, name, channel)
        assert page.evaluate("document.activeElement.ariaLabel") == f"{name}, channel {channel}"
        assert page.locator("[role=toolbar] button[tabindex='0']").count() == 1
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # nothing above the first stage
    wait_for(page, "enc1", channels[0][2])
    page.wait_for_function("document.querySelector('.unet-spoken').textContent.includes('enc1')")
    assert page.complaints == []


def test_the_stages_form_a_u(open_widget: OpenWidget):
    page = open_widget(FeatureMaps.of(network(), IMAGE), width=1100)
    box = {
        name: page.locator(f"[role=group][aria-label={name}] button").first.bounding_box()
        for name in ("enc1", "enc2", "bottleneck", "dec2", "dec1")
    }
    assert box["enc1"]["y"] < box["enc2"]["y"] < box["bottleneck"]["y"]
    assert (box["dec1"]["y"], box["dec2"]["y"]) == (box["enc1"]["y"], box["enc2"]["y"])
    assert box["enc1"]["x"] < box["enc2"]["x"] < box["bottleneck"]["x"] < box["dec2"]["x"]


def test_python_and_page_move_each_other(open_widget: OpenWidget):
    widget = FeatureMaps.of(network(), IMAGE)
    channel = widget.stages[-1]["maps"][-1]["channel"]
    page = open_widget(widget)
    label = page.evaluate(
        """async ([state, channel]) => {
          const model = UNetBook.staticModel(state);
          const el = document.createElement("div");
          const end = UNetBook.widgets["feature-maps"](model, el);
          const next = () => new Promise(requestAnimationFrame);
          model.set("stage", "dec1");
          model.set("channel", channel);
          await next();
          await next();
          const moved = el.querySelector("canvas[role=img]").ariaLabel;
          el.querySelectorAll("button")[1].click();
          end();
          return [moved, model.get("stage")];
        }""",
        [widget.state(), channel],
    )
    assert f"dec1, channel {channel}:" in label[0]
    assert label[1] == "enc1"
