"""Chapters begin alike, judge their results, and read stored ones; figures are what they say."""

import inspect
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from unet_tutorial import UNet, UpSampling, lesson, plots, profiles, results
from unet_tutorial.lesson import PROFILES, setup, setup_for_results, source_of
from unet_tutorial.shapes import trace_shapes


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def smoke():
    return setup("smoke", "membranes")


def test_the_environment_decides_what_auto_means(monkeypatch):
    monkeypatch.setenv("UNET_TUTORIAL_PROFILE", "smoke")
    assert setup("auto", "membranes").profile.name == "smoke"
    monkeypatch.setenv("UNET_TUTORIAL_PROFILE", "huge")
    with pytest.raises(ValueError, match="cpu, gpu, small, smoke, got 'huge'"):
        setup("auto", "membranes")


@pytest.mark.parametrize(
    ("precision", "name", "base"), [("bfloat16", "cpu", 16), ("float32", "small", 8)]
)
def test_a_cpu_that_computes_only_float32_fast_gets_narrower_networks(
    smoke, monkeypatch, precision, name, base
):
    monkeypatch.delenv("UNET_TUTORIAL_PROFILE", raising=False)
    monkeypatch.setattr(lesson, "load", lambda *_, **__: smoke.data)
    monkeypatch.setattr(lesson, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(profiles, "choose_precision", lambda device: precision)
    here = setup("auto", "membranes")
    assert (here.profile.name, here.build().options["base_channels"]) == (name, base)
    assert setup_for_results("auto", "membranes").profile.name == "cpu"  # beside the stored ones
    assert setup_for_results("gpu", "membranes").profile.name == "gpu"


def test_results_are_measured_with_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("UNET_TUTORIAL_PROFILE", "smoke")
    assert setup_for_results("auto", "membranes").profile.name == "smoke"
    monkeypatch.setenv("UNET_TUTORIAL_PROFILE", "small")
    with pytest.raises(ValueError, match="'cpu', 'gpu' or 'smoke', got 'small'"):
        setup_for_results("auto", "membranes")


def test_every_profile_trains_crops_that_the_network_takes():
    for profile in PROFILES.values():
        assert profile.config.crop_size % 16 == 0


def test_networks_of_a_lesson_start_alike(smoke):
    first, second, none = smoke.build(), smoke.build(), smoke.build(skip="none")
    assert torch.equal(first.out.weight, second.out.weight)
    shared = first.contracting[0].conv.conv_block[0].weight
    assert torch.equal(shared, none.contracting[0].conv.conv_block[0].weight)


def test_a_lesson_trains_with_its_budget(smoke, capsys):
    result = smoke.train(smoke.build(skip="add"))
    assert result.steps_done == smoke.profile.config.steps
    assert "loss" in capsys.readouterr().out


def test_results_are_judged_but_not_in_smoke(smoke, capsys):
    smoke.require("error", 0.5, at_most={"membranes": 0.1})
    assert "not judged" in capsys.readouterr().out
    strict = lesson.Lesson(PROFILES["cpu"], smoke.data, 0)
    strict.require("Dice", 0.8, at_least={"membranes": 0.7})
    assert "✓ Dice 0.800 ≥ 0.7" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=r"error is 0\.500, asked ≤ 0\.1 on membranes"):
        strict.require("error", 0.5, at_most={"membranes": 0.1})


def test_shown_source_is_the_packages_without_docstrings():
    shown = source_of(UpSampling)
    assert '"""' not in shown
    assert "torch.cat((x, x2), dim=1)" in shown
    code = [line for line in shown.splitlines() if line.strip()]
    original = inspect.getsource(UpSampling).splitlines()
    assert all(line in original for line in code)


def test_a_result_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.json"
    results.write_results(path, [{"x": 1}], description="d", settings={"steps": 3})
    stored = json.loads(path.read_text())
    assert set(stored) == {"description", "date", "commit", "machine", "settings", "rows"}

    def fails(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr("unet_tutorial._files.os.replace", fails)
    with pytest.raises(OSError, match="disk full"):
        results.write_results(path, [{"x": 2}], description="d", settings={})
    assert json.loads(path.read_text())["rows"] == [{"x": 1}]
    with pytest.raises(ValueError, match="rows is empty"):
        results.write_results(path, [], description="d", settings={})


def test_missing_results_say_where_they_come_from():
    with pytest.raises(FileNotFoundError, match="make gpu-results"):
        results.read_results("never_measured")


def test_a_part_of_a_source_is_moved_to_the_left(capsys):
    from unet_tutorial.training import fit

    lesson.show_part(fit, "for step in range", "result.seconds +=")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("for step in range(")
    assert any(line.startswith("    loss = ") for line in shown)
    assert not any("result.seconds" in line for line in shown)


def test_results_of_a_gpu_are_not_those_of_the_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert results.read_results("isbi")["machine"]["device"] == "cpu"
    rows = [{"x": 1}]
    results.write_results("results/gpu/isbi.json", rows, description="d", settings={})
    assert results.read_results("gpu/isbi")["rows"] == rows
    with pytest.raises(FileNotFoundError):
        results.read_results("gpu/never_measured")


def test_mean_and_spread_by_group():
    rows = [{"s": "a", "x": 1.0}, {"s": "a", "x": 3.0}, {"s": "b", "x": 5.0}]
    assert results.mean_and_spread(rows, ["s"], "x") == {
        ("a",): (2.0, pytest.approx(2**0.5)),
        ("b",): (5.0, 0.0),
    }


@pytest.mark.parametrize("options", [{}, {"padding": "valid"}, {"skip": "none"}, {"skip": "add"},
                                     {"depth": 1}, {"upsampling": "bilinear"}])  # fmt: skip
def test_the_u_is_drawn_to_scale(options):
    size = 204 if options.get("padding") == "valid" else 208
    with torch.device("meta"):
        trace = trace_shapes(UNet(1, 2, base_channels=8, **options), (size, size))
    axes = plots.draw_u(trace).axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    heights = {round(box.get_height()) for box in boxes}
    expected = {layer.output[1] for s in trace for layer in s.layers} | {size}
    assert heights == expected
    widest = max(box.get_width() for box in boxes)
    unit = widest / max(stage.output[0] for stage in trace if not stage.name.startswith("skip"))
    assert any(box.get_width() == pytest.approx(8 * unit) for box in boxes)


def test_parts_that_are_not_built_are_pale():
    with torch.device("meta"):
        trace = trace_shapes(UNet(1, 2, base_channels=8, depth=2), (64, 64))
    axes = plots.draw_u(trace, built=["enc1", "pool1"]).axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    filled = [box for box in boxes if box.get_facecolor()[:3] == to_rgb(plots.BLOCK)]
    assert len(filled) == 4  # the image, two convolutions, one pooled map
    with pytest.raises(KeyError, match="no stage 'encoder'"):
        plots.draw_u(trace, built=["encoder"])


def test_errors_are_orange_where_missed_and_blue_where_invented():
    truth = np.array([[1, 0, 1, 0]], bool)
    found = np.array([[0, 1, 1, 0]], bool)
    overlay = plots.error_overlay(np.ones((1, 4)), found, truth)
    assert tuple(overlay[0, 0]) == to_rgb(plots.MISSED)
    assert tuple(overlay[0, 1]) == to_rgb(plots.INVENTED)
    assert overlay[0, 2].tolist() == overlay[0, 3].tolist() == [1, 1, 1]


def test_curves_show_every_training(smoke):
    run = smoke.train(smoke.build())
    left, right = plots.plot_training({"a": run, "b": run}).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["a", "b"]
    assert len(right.lines[0].get_xdata()) == len(run.validations)
