"""The playback shows each snapshot of a training with its own loss and score."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import OpenWidget

from unet_tutorial import UNet
from unet_tutorial._pictures import read_url
from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.metrics import dice, pixel_error
from unet_tutorial.training import TrainingConfig, TrainingResult, Validation, fit
from unet_tutorial.widgets._training_playback import TrainingPlayback


@cache
def data() -> SegmentationData:
    return load("membranes", n_images=10, size=64)


def training(steps: int = 40, every: int = 10, size: int = 64, classes: int = 2) -> TrainingResult:
    """Make up a training: noise that turns into the label."""
    chance = np.random.default_rng(0)
    truth = np.resize(data().validation.labels[0], (size, size))
    losses = (np.exp(-np.arange(steps) / 20) + chance.random(steps) / 10).tolist()
    result = TrainingResult(
        UNet(1, classes, base_channels=2, depth=2),
        TrainingConfig(steps=steps, snapshot_every=every),
        "cpu",
        "float32",
        losses=losses,
    )
    for step in range(every, steps + 1, every):
        share = step / steps
        scores = chance.random((classes, size, size)) * (1.1 - share)
        scores += share * (np.arange(classes)[:, None, None] == truth)
        result.snapshots.append((step, (scores / scores.sum(axis=0)).astype(np.float16)))
        result.validations.append(Validation(step, 0.5 - 0.4 * share, share))
    return result


def playback(**options: Any) -> TrainingPlayback:
    return TrainingPlayback.of(training(**options), data())


def test_scores_are_those_of_the_snapshots():
    result, truth = training(), data().validation.labels[0]
    widget = TrainingPlayback.of(result, data())
    assert len(widget.frames) == 4
    for frame, (step, found) in zip(widget.frames, result.snapshots, strict=True):
        guess = found.argmax(axis=0)
        assert frame["step"] == step
        assert frame["loss"] == round(np.mean(result.losses[max(0, step - 15) : step]), 3)
        assert frame["error"] == round(pixel_error(guess, truth), 3)
        assert frame["dice"] == round(dice(guess == 1, truth == 1), 3)
        shown = read_url(frame["picture"]) / 255
        assert np.abs(shown - (1 - found[1].astype(float))).mean() < 0.03
    assert widget.frame == 3


def test_a_real_training_can_be_played():
    config = TrainingConfig(steps=4, batch_size=1, crop_size=32, snapshot_every=2)
    result = fit(UNet(1, 2, base_channels=2, depth=2), data(), config, report=None)
    widget = TrainingPlayback.of(result, data())
    assert [frame["step"] for frame in widget.frames] == [2, 4]
    assert (read_url(widget.label) == np.where(data().validation.labels[0] == 1, 0, 255)).all()


def test_of_many_snapshots_twelve_are_kept_evenly_with_both_ends():
    steps = [frame["step"] for frame in playback(steps=200, every=2).frames]
    assert len(steps) == 12
    assert (steps[0], steps[-1]) == (2, 200)
    assert set(np.diff(steps)) == {18}


def test_frames_are_small_whatever_they_show():
    large = replace(
        data(),
        images=tuple(np.resize(image, (1, 512, 512)) for image in data().images),
        labels=tuple(np.resize(label, (512, 512)) for label in data().labels),
        instances=None,
        mitochondria=None,
    )
    widget = TrainingPlayback.of(training(steps=48, every=4, size=512), large)
    assert len(widget.frames) == 12
    assert max(read_url(widget.frames[0]["picture"]).shape) == 192
    assert sum(len(frame["picture"]) for frame in widget.frames) <= 250_000


def test_marks_lie_on_the_curves():
    widget = playback()
    for chart, svg in enumerate(widget.charts):
        curve = [
            tuple(map(float, point.split()))
            for point in re.search(r'<path d="M([^V"]+)" fill="none" stroke="currentColor"/>', svg)
            .group(1)
            .split("L")
        ]
        for frame in widget.frames:
            x, y = frame["marks"][chart]
            near = min(curve, key=lambda point: abs(point[0] - x))
            assert near == pytest.approx((x, y), abs=0.5)
        assert f'cx="{widget.frames[-1]["marks"][chart][0]}"' in svg
    held_out = len(data().validation)
    assert f"dashed: of all {held_out} held-out images" in widget.charts[1]
    assert "stroke-dasharray" in widget.charts[1]


def test_one_held_out_image_needs_no_second_curve():
    alone = replace(data(), validation_indices=data().validation_indices[:1])
    assert "dash" not in TrainingPlayback.of(training(), alone).charts[1]
    silent = training()
    silent.validations.clear()
    assert "dash" not in TrainingPlayback.of(silent, data()).charts[1]


def test_of_more_classes_the_likeliest_is_shown():
    result = training(classes=3)
    shown = read_url(TrainingPlayback.of(result, data()).frames[0]["picture"]).astype(float)
    expected = 255 * (1 - result.snapshots[0][1].argmax(axis=0) / 2)
    assert np.abs(shown - expected).mean() < 15


def test_output_is_the_same_every_time_and_small():
    one, two = playback(), playback()
    assert one.static_html() == two.static_html()
    assert one.table() == two.table()
    assert json.loads(json.dumps(one.state(), allow_nan=False)) == one.state()
    text = playback(steps=400, every=20).still()
    assert text.count("<img") == 2 + 12
    assert len(re.sub(r'src="[^"]*"', "", text)) < 15_000
    lines = one.table().splitlines()
    assert lines[0].split() == ["step", "loss", "pixel", "error", "Dice"]
    assert [line.split()[0] for line in lines[1:]] == ["10", "20", "30", "40"]


def test_mistakes_are_named():
    result = training()
    result.snapshots.clear()
    with pytest.raises(ValueError, match=r"kept no snapshots.*snapshot_every=\.\.\."):
        TrainingPlayback.of(result, data())
    with pytest.raises(ValueError, match=r"of shape \(32, 32\).* \(64, 64\): give the data"):
        TrainingPlayback.of(training(size=32), data())
    nothing = replace(data(), validation_indices=())
    with pytest.raises(ValueError, match="missing: give the data of this training"):
        TrainingPlayback.of(training(), nothing)
    widget = playback()
    with pytest.raises(ValueError, match=r"frame must be below 4.*got 4"):
        widget.frame = 4
    widget.frame = 2
    assert widget.frame == 2


def test_a_training_that_ran_out_of_numbers_still_plays():
    result = training()
    result.losses[-3:] = [float("nan")] * 3
    json.dumps(TrainingPlayback.of(result, data()).state(), allow_nan=False)


# --- in a browser


LIVE = ".unet-widget-live"


def shows(page: Any, frame: dict[str, Any]) -> None:
    """Wait for a snapshot, and see that all parts of the page show it."""
    words = (
        f"After step {frame['step']}: loss {frame['loss']:.3f}, pixel error "
        f"{frame['error']:.3f}, Dice {frame['dice']:.3f}"
    )
    page.locator(LIVE).get_by_text(words).first.wait_for()
    pictures = [image for image in page.locator(f"{LIVE} img").all() if image.is_visible()]
    assert [image.get_attribute("src") for image in pictures][2:] == [frame["picture"]]
    assert pictures[2].get_attribute("alt") == f"after step {frame['step']}"
    markers = page.locator(f"{LIVE} circle").all()
    assert [
        [float(marker.get_attribute(name)) for name in ("cx", "cy")] for marker in markers
    ] == frame["marks"]
    slider = page.get_by_role("slider", name="step")
    assert slider.get_attribute("aria-valuetext") == f"step {frame['step']}"
    assert page.locator(f"{LIVE} output").inner_text() == str(frame["step"])


def test_the_slider_moves_through_the_training(open_widget: OpenWidget):
    widget = playback()
    page = open_widget(widget)
    shows(page, widget.frames[3])
    page.get_by_role("slider", name="step").focus()
    page.keyboard.press("ArrowLeft")
    shows(page, widget.frames[2])
    page.keyboard.press("Home")
    shows(page, widget.frames[0])
    box = page.get_by_role("slider", name="step").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    shows(page, widget.frames[3])
    page.wait_for_function(
        "document.querySelector('.unet-spoken').textContent.startsWith('After step 40')"
    )
    assert page.complaints == []


def test_the_button_plays_from_the_beginning_pauses_and_goes_on(open_widget: OpenWidget):
    widget = playback()
    page = open_widget(widget, motion="no-preference")
    page.clock.install()
    shows(page, widget.frames[3])
    page.clock.run_for(3000)
    shows(page, widget.frames[3])  # nothing starts by itself
    play = page.locator(f"{LIVE} button")
    assert play.inner_text() == "play"
    play.focus()
    page.keyboard.press("Enter")
    page.clock.run_for(100)
    shows(page, widget.frames[0])
    assert play.inner_text() == "pause"
    page.clock.run_for(700)
    shows(page, widget.frames[1])
    page.keyboard.press("Enter")
    assert play.inner_text() == "play"
    page.clock.run_for(3000)
    shows(page, widget.frames[1])
    page.keyboard.press("Enter")
    page.clock.run_for(3000)
    shows(page, widget.frames[3])
    assert play.inner_text() == "play"
    assert page.complaints == []


def test_with_little_motion_the_button_moves_on_by_one(open_widget: OpenWidget):
    widget = playback()
    page = open_widget(widget)
    button = page.get_by_role("button", name="next")
    for frame in [*widget.frames, widget.frames[0]]:  # from the last it starts again
        button.click()
        shows(page, frame)
    page.wait_for_timeout(900)
    shows(page, widget.frames[0])


def test_a_change_from_python_is_shown_until_the_widget_is_closed(open_widget: OpenWidget):
    widget = playback()
    page = open_widget(widget)
    page.evaluate(
        """() => {
          const state = UNetBook.stateOf(document.querySelector(".unet-widget"));
          globalThis.model = UNetBook.staticModel(state);
          const live = document.querySelector(".unet-widget-live");
          live.replaceChildren();
          globalThis.close = UNetBook.widgets["training-playback"](model, live);
          model.set("frame", 1);
        }"""
    )
    shows(page, widget.frames[1])
    page.evaluate("() => { close(); model.set('frame', 0); }")
    page.wait_for_timeout(100)
    shows(page, widget.frames[1])
    assert page.complaints == []
