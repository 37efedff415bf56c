"""Skip surgery: what the page does to a skip is what torch does, and the scores follow."""

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
from unet_tutorial.metrics import dice, pixel_error
from unet_tutorial.surgery import WAYS, cut_skips, treat_skips
from unet_tutorial.unet import initialize_he
from unet_tutorial.widgets import SkipSurgery
from unet_tutorial.widgets._live import PageNetwork, eight_bit, prepare

LIVE = ".unet-widget-live"
SIDE = 64
pytestmark = pytest.mark.usefixtures("one_thread")


def network(skip: str = "concat", **options: Any) -> UNet:
    """An untrained network whose signals stay alive, and that answers now this, now that."""
    torch.manual_seed(0)
    model = UNet(1, 2, skip=skip, **{"base_channels": 4, "depth": 3, **options}).eval()  # type: ignore[arg-type]
    initialize_he(model)
    with torch.inference_mode():
        logits = model(torch.rand(1, 1, SIDE, SIDE))[0] if model.padding == "same" else None
        if logits is not None:
            model.out.bias[1] -= (logits[1] - logits[0]).median()
    return model


@pytest.fixture(scope="module")
def data() -> Any:
    return load("membranes", n_images=3, size=SIDE)


@pytest.fixture(scope="module")
def widget(data: Any) -> SkipSurgery:
    models = {f"yours-{skip}": network(skip) for skip in ("concat", "add", "none")}
    return SkipSurgery.of(models, data.images[0], data.labels[0], data.images[1])


def page_form(model: UNet) -> PageNetwork:
    return prepare(model)[0]


# --- in torch


def test_a_treated_skip_carries_what_its_name_says(data: Any) -> None:
    model = network()
    image, other = data.images[0], data.images[1]
    own, its = (stage_features(model, one, "enc2") for one in (image, other))
    expected = {
        "own": own,
        "cut": np.zeros_like(own),
        "mean": np.broadcast_to(own.mean((1, 2), keepdims=True), own.shape),
        "other": its,
    }
    assert set(expected) == set(WAYS)
    seen: list[Any] = []
    model.expansive[1].conv.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][0, 8:].numpy())
    )
    for way, maps in expected.items():
        with torch.inference_mode(), treat_skips(model, {2: (way, 0.5)}, other):
            model(torch.from_numpy(image)[None])
        np.testing.assert_allclose(seen[-1], 0.5 * maps, rtol=0, atol=1e-6)


def test_cutting_is_what_cut_skips_does(data: Any) -> None:
    given = torch.from_numpy(data.images[0])[None]
    for skip in ("concat", "add"):
        model = network(skip)
        with torch.inference_mode():
            whole = model(given)
            with treat_skips(model, {1: ("cut", 1.0), 3: ("cut", 1.0)}):
                mine = model(given)
            with cut_skips(model, 1, 3):
                theirs = model(given)
            assert torch.equal(mine, theirs)
            assert not torch.equal(mine, whole)
            assert torch.equal(model(given), whole), "the network stays treated"


def test_an_unpadded_skip_is_averaged_over_what_the_joint_takes() -> None:
    model = network(padding="valid", depth=1)
    image = np.random.default_rng(0).random((1, 24, 24), np.float32)
    with torch.inference_mode():
        own = model.contracting[0](torch.from_numpy(image)[None])[0][0].numpy()
    seen: list[Any] = []
    model.expansive[0].conv.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][0, 4:].numpy())
    )
    with torch.inference_mode(), treat_skips(model, {1: ("mean", 1.0)}):
        model(torch.from_numpy(image)[None])
    taken = own[:, 4:-4, 4:-4]  # of 20 pixels the middle 12
    assert seen[0].shape == taken.shape
    np.testing.assert_allclose(seen[0][:, 0, 0], taken.mean((1, 2)), rtol=0, atol=1e-6)


# --- what is stored


def test_the_table_scores_each_operation(widget: SkipSurgery, data: Any) -> None:
    assert [row[0] for row in widget.outcomes[:4]] == [
        "as trained",
        "skip 1: cut",
        "skip 1: only its mean",
        "skip 1: the other image's",
    ]
    assert len(widget.outcomes) == 1 + 3 * 3
    truth = data.labels[0]
    add = page_form(network("add"))
    image, other = eight_bit(data.images[0]), eight_bit(data.images[1])
    with treat_skips(add.model, {3: ("other", 1.0)}, other):
        mask = add.probabilities(image)[1] > 0.5
    expected = [f"{pixel_error(mask, truth):.1%}", f"{dice(mask, truth):.3f}"]
    assert widget.outcomes[-1][3:5] == expected
    assert widget.outcomes[0][3:5] != expected
    assert widget.outcomes[-1][5:] == ["–", "–"]
    assert widget.absent == ["yours-none"]
    lines = widget.table().splitlines()
    assert len(lines) == 11
    assert lines[0].split()[:2] == ["skips", "yours-concat:"]


def test_mistakes_are_named(data: Any) -> None:
    image, label = data.images[0], data.labels[0]
    with pytest.raises(ValueError, match=r"label of 0 and 1 in the image's shape \(64, 64\)"):
        SkipSurgery.of(network(), image, label[:32], image)
    with pytest.raises(ValueError, match="32×64 pixels, fewer than the 64×64"):
        SkipSurgery.of(network(), image, label, image[:, :32])
    with pytest.raises(ValueError, match="b: depth is 2, that of the first network 3"):
        SkipSurgery.of({"a": network(), "b": network(depth=2)}, image, label, image)
    with pytest.raises(ValueError, match="this network has 3 classes"):
        SkipSurgery.of(UNet(1, 3, base_channels=2, depth=1), image, label, image)
    with pytest.raises(ValueError, match="pass other="), treat_skips(network(), {1: ("other", 1)}):
        pass
    with pytest.raises(ValueError, match="not 'half'"), treat_skips(network(), {1: ("half", 1)}):
        pass
    with (
        pytest.raises(ValueError, match="levels are 1 to 3"),
        treat_skips(network(), {4: ("cut", 1)}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="skip='none'"),
        treat_skips(network("none"), {1: ("cut", 1)}),
    ):
        pass
    small = SkipSurgery.of(network(depth=1), image, label, image)
    with pytest.raises(ValueError, match="one entry for each of the 1 skips"):
        small.parts = [100, 50]


# --- in a browser


RUN = """async ([state, name, all]) => {
  const model = UNetBook.staticModel({ ...state, network: name });
  const host = UNetBook.live(model);
  const [height, width] = state.size;
  const [image, other] = await Promise.all(
    [state.picture, state.other].map((one) => UNetBook.pixels(one, [height, width])));
  await host.wake();
  await host.run({ image: other, height, width, keep: true });
  const found = [];
  for (const skips of all)
    found.push([...(await host.run({ image, height, width, skips })).probabilities]);
  host.close();
  return found;
}"""


@pytest.mark.parametrize("skip", ["concat", "add"])
def test_the_page_treats_every_skip_as_torch_does(
    open_widget: OpenWidget, widget: SkipSurgery, data: Any, skip: str
) -> None:
    page = open_widget(widget)
    page.wait_for_selector(LIVE)
    cases = [{level: (way, 1.0)} for level in (1, 2, 3) for way in ("cut", "mean", "other")]
    cases += [{level: ("own", 0.4)} for level in (1, 2, 3)]
    cases += [{1: ("mean", 0.7), 2: ("other", 0.3), 3: ("own", 0.1)}, {}]
    asked = [
        {
            level: {"from": way, "scale": 0 if way == "cut" else part}
            for level, (way, part) in c.items()
        }
        for c in cases
    ]
    found = page.evaluate(RUN, [widget.state(), f"yours-{skip}", asked])
    twin = page_form(network(skip))
    image, other = eight_bit(data.images[0]), eight_bit(data.images[1])
    answers = []
    for case, values in zip(cases, found, strict=True):
        with treat_skips(twin.model, case, other):
            expected = twin.probabilities(image)
        np.testing.assert_allclose(np.reshape(values, expected.shape), expected, rtol=0, atol=1e-5)
        answers.append(expected)
    untreated = answers.pop()
    assert min(np.abs(answer - untreated).max() for answer in answers) > 1e-3
    assert page.complaints == []


def scores(page: Any) -> list[list[str]]:
    rows = page.locator(f"{LIVE} tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def wait_for(page: Any, wrong: str) -> None:
    page.wait_for_function(
        "(wrong) => document.querySelector('.unet-widget-live tbody td').textContent === wrong",
        arg=wrong,
    )


def canvas(page: Any, number: int) -> np.ndarray:
    address = page.locator(f"{LIVE} canvas").nth(number).evaluate("one => one.toDataURL()")
    return read_url(address)


def test_the_stored_example_stands_before_anything_is_loaded(
    open_widget: OpenWidget, widget: SkipSurgery
) -> None:
    page = open_widget(widget)
    page.wait_for_selector(f"{LIVE} tbody")
    whole = widget.outcomes[0][1:3]
    assert scores(page) == [["now", *whole], ["as trained", *whole]]
    assert "Stored example" in page.locator(LIVE).inner_text()
    assert page.evaluate("Object.keys(UNetBook.networks)") == []
    assert (canvas(page, 0)[..., 0] == read_url(widget.probability)).all()


def test_mask_scores_and_voice_follow_the_knife(
    open_widget: OpenWidget, widget: SkipSurgery, data: Any
) -> None:
    page = open_widget(widget)
    page.get_by_label("skip 2", exact=True).select_option("other")
    row = next(row for row in widget.outcomes if row[0] == "skip 2: the other image's")
    assert row[1] != widget.outcomes[0][1], "this surgery would change nothing"
    wait_for(page, row[1])
    assert scores(page) == [["now", *row[1:3]], ["as trained", *widget.outcomes[0][1:3]]]
    twin = page_form(network())
    with treat_skips(twin.model, {2: ("other", 1.0)}, eight_bit(data.images[1])):
        found = twin.probabilities(eight_bit(data.images[0]))[1]
    assert np.abs(canvas(page, 0)[..., 0] - 255 * (1 - found)).max() <= 1.01
    truth, mask = data.labels[0] == 1, found > 0.5
    marks = canvas(page, 1)
    assert (marks[..., 3] == 255 * (mask != truth)).all()
    assert (marks[truth & ~mask] == [0xE0, 0x7B, 0x00, 255]).all()
    assert (marks[mask & ~truth] == [0x2F, 0x6F, 0xDE, 255]).all()
    page.wait_for_function(
        "words => document.querySelector('.unet-spoken').textContent.includes(words)",
        arg=f"now {row[1]} wrong, Dice {row[2]}",
    )
    page.get_by_role("button", name="As trained").click()
    wait_for(page, widget.outcomes[0][1])
    assert page.get_by_label("skip 2", exact=True).input_value() == "own"
    assert page.complaints == []


def test_another_network_gets_the_same_operation(
    open_widget: OpenWidget, widget: SkipSurgery
) -> None:
    page = open_widget(widget)
    page.get_by_label("skip 3", exact=True).select_option("other")
    rows = {row[0]: row for row in widget.outcomes}
    wait_for(page, rows["skip 3: the other image's"][1])
    page.get_by_label("network").select_option("yours-add")
    wait_for(page, rows["skip 3: the other image's"][3])
    page.get_by_label("network").select_option("yours-none")
    wait_for(page, rows["as trained"][5])
    assert not page.get_by_role("button", name="Cut all").is_visible()
    assert "It has no skips to cut" in page.locator(LIVE).inner_text()
    page.get_by_label("network").select_option("yours-concat")
    wait_for(page, rows["skip 3: the other image's"][1])
    assert page.complaints == []


def test_a_dimmed_skip_by_keyboard(open_widget: OpenWidget, widget: SkipSurgery, data: Any) -> None:
    page = open_widget(widget)
    slider = page.get_by_label("part of skip 1", exact=True)
    slider.press("Home")
    cut = next(row for row in widget.outcomes if row[0] == "skip 1: cut")
    wait_for(page, cut[1])
    page.get_by_label("skip 1", exact=True).select_option("cut")
    assert not slider.is_visible()  # there is nothing left to dim
    page.get_by_label("skip 1", exact=True).select_option("own")
    for _ in range(3):
        slider.press("PageUp")
    part = int(slider.input_value()) / 100
    assert 0 < part < 1
    twin = page_form(network())
    with treat_skips(twin.model, {1: ("own", part)}):
        mask = twin.probabilities(eight_bit(data.images[0]))[1] > 0.5
    wait_for(page, f"{pixel_error(mask, data.labels[0]):.1%}")
    assert page.complaints == []


def test_an_unpadded_network_answers_for_the_middle(open_widget: OpenWidget, data: Any) -> None:
    model = network(padding="valid", depth=2)
    widget = SkipSurgery.of(model, data.images[0], data.labels[0], data.images[1])
    assert widget.size == [64, 64]
    assert widget.area == [24, 24]
    page = open_widget(widget)
    page.get_by_role("button", name="Cut all").click()
    twin = page_form(model)
    with cut_skips(twin.model, 1, 2):
        found = twin.probabilities(eight_bit(data.images[0]))[1]
    truth = data.labels[0][20:44, 20:44]
    wait_for(page, f"{pixel_error(found > 0.5, truth):.1%}")
    assert (read_url(widget.label) == 255 * (1 - truth)).all()
    assert page.complaints == []
