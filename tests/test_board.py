"""The board is what its scripts measured, every rung is what its name says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import load_script

from unet_tutorial import UNet, board
from unet_tutorial.board import RUNGS, VARIANTS, measure, membrane_maps, otsu_membrane, show_board
from unet_tutorial.datasets import load
from unet_tutorial.lesson import PROFILES, setup
from unet_tutorial.metrics import Scores, grid_error, pixel_error, rim_error
from unet_tutorial.results import read_results, write_results
from unet_tutorial.shapes import receptive_field


@pytest.fixture(scope="module")
def smoke() -> Any:
    return setup("smoke", "membranes")


# ---- scores


def test_squares_forgive_a_shift_within_them_and_nothing_else() -> None:
    target = np.zeros((32, 32), int)
    target[:, 4] = 1
    shifted, away = np.roll(target, 5, axis=1), np.roll(target, 16, axis=1)
    assert pixel_error(shifted, target) == pixel_error(away, target) > 0
    assert grid_error(shifted, target) == 0
    assert grid_error(away, target) == pytest.approx(1 / 16)


def test_squares_that_are_not_whole_are_left_out_and_none_is_an_error() -> None:
    target = np.zeros((20, 33), int)
    wrong = target.astype(float)
    wrong[16:], wrong[:, 32:] = 1, 1
    assert grid_error(wrong, target) == 0
    with pytest.raises(ValueError, match=r"no square of 16×16 pixels fits into \(15, 40\)"):
        grid_error(np.zeros((15, 40)), np.zeros((15, 40), int))


def test_rims_are_counted_inside_objects_only_and_not_where_the_picture_cuts_them() -> None:
    objects = np.zeros((30, 30), bool)
    objects[10:20, :10] = True  # cut by the left border of the picture
    everywhere = np.ones_like(objects)
    assert rim_error(everywhere, objects) == 1
    assert rim_error(~objects, objects) == 0
    core = np.zeros_like(objects)
    core[14:16, :6] = True  # farther than 4 pixels from the object's own edges
    assert rim_error(core, objects) == 0
    assert math.isnan(rim_error(everywhere, np.zeros_like(objects)))
    with pytest.raises(ValueError, match="equal shapes"):
        rim_error(everywhere[:5], objects)


def test_all_scores_of_a_perfect_answer_are_perfect() -> None:
    data = load("membranes", n_images=2, size=256)
    found = measure([label.astype(float) for label in data.labels], data)
    assert found["pixel_error"] == found["grid_error"] == found["rim_error"] == 0
    assert found["dice"] == found["v_rand"] == found["v_info"] == 1
    assert set(found["error_at_distance"]) <= {0.0, None}
    json.dumps(found, allow_nan=False)


def test_unknown_mitochondria_give_no_rim_error() -> None:
    data = load("membranes", n_images=2, size=64)
    bare = type(data)(**{**vars(data), "mitochondria": None})
    assert measure([np.zeros((64, 64))] * 2, bare)["rim_error"] is None


def test_otsu_needs_no_training_and_finds_the_dark() -> None:
    image = np.full((1, 8, 8), 0.8, np.float32)
    image[0, :, 3] = 0.2
    assert np.array_equal(otsu_membrane(image), (image[0] < 0.5).astype(np.float32))


# ---- rungs


def test_every_rung_answers_for_every_pixel(smoke: Any) -> None:
    images = torch.rand(1, 1, 64, 80)
    for recipe in [*RUNGS.values(), *VARIANTS.values()]:
        if recipe:
            network, options = recipe
            assert smoke.build(network, **options)(images).shape == (1, 2, 64, 80)


def test_rungs_differ_in_what_their_names_say(smoke: Any) -> None:
    def build(rung: str) -> Any:
        network, options = {**RUNGS, **VARIANTS}[rung]  # type: ignore[misc]
        return smoke.build(network, **options)

    assert receptive_field(build("three convolutions")).height == 7
    assert receptive_field(build("+ bottleneck"), "bottleneck").height == 140
    assert build("+ expansive path").options["skip"] == "none"
    assert build("+ skip connections").options["skip"] == "concat"
    assert build("skips added").options["skip"] == "add"
    assert build("bilinear expansive path").options["upsampling"] == "bilinear"
    assert isinstance(build("+ skip connections"), UNet)


@pytest.mark.parametrize(("name", "column"), [("board", "rung"), ("depths", "depth")])
def test_scripts_write_what_the_chapters_read(name: str, column: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    load_script(name).main(out=out, profile="smoke", dataset=["membranes"], seeds=1)
    fresh, stored = json.loads(out.read_text()), read_results(name)
    assert set(fresh) == set(stored)
    assert set(fresh["settings"]) == set(stored["settings"])
    assert [set(row) for row in fresh["rows"]] == [set(stored["rows"][0])] * len(fresh["rows"])
    assert [row[column] for row in fresh["rows"]] == list(
        dict.fromkeys(row[column] for row in stored["rows"])
    )


def test_the_isbi_script_writes_what_is_stored(tmp_path: Path) -> None:
    out = tmp_path / "isbi.json"
    load_script("isbi").main(out=out, profile="smoke", dataset="membranes", seeds=1)
    fresh, stored = json.loads(out.read_text()), read_results("isbi")
    assert set(fresh["settings"]) == set(stored["settings"])
    assert [row["averaged"] for row in fresh["rows"]] == [False, True]
    assert [set(row) for row in fresh["rows"]] == [set(stored["rows"][0])] * 2
    assert {row["seed"] for row in stored["rows"]} == {0, 1, 2}
    assert {row["dataset"] for row in stored["rows"]} == {"isbi2012"}


def test_stored_results_are_complete() -> None:
    for name, column in (("board", "rung"), ("depths", "depth")):
        rows = read_results(name)["rows"]
        groups = {(row["dataset"], row["seed"], row[column]) for row in rows}
        kinds = {row[column] for row in rows}
        assert {row["dataset"] for row in rows} == {"isbi2012", "membranes"}
        assert {row["seed"] for row in rows} == {0, 1, 2}
        assert len(groups) == len(rows) == 2 * 3 * len(kinds)
    assert {row["rung"] for row in read_results("board")["rows"]} == {*RUNGS, *VARIANTS}


# ---- what the chapters print


@pytest.fixture
def small(tmp_path: Path) -> str:
    rows = [
        {"dataset": "membranes", "seed": seed, "rung": rung, "edge_distance": [1.0, None],
         "error_at_distance": [0.4 + seed / 10, 0.1], "pixel_error": value + seed / 10,
         "dice": value, "v_rand": value, "v_info": value}
        for seed in (0, 1)
        for rung, value in (("Otsu's threshold", 0.3), ("three convolutions", 0.2))
    ]  # fmt: skip
    file = tmp_path / "small.json"
    write_results(file, rows, description="", settings={"profile": "cpu"})
    return str(file)


def test_board_shows_mean_and_spread_up_to_a_rung(small: str, capsys: Any) -> None:
    show_board("Otsu's threshold", results=small)
    said = capsys.readouterr().out
    assert "membranes, 2 seeds" in said
    assert "0.350 ± 0.071" in said
    assert "three convolutions" not in said
    show_board("contracting path", results=small)
    assert "contracting path" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no rung 'decoder'; the rungs are Otsu's threshold, "):
        show_board("decoder", results=small)


def test_a_fresh_result_stands_beside_the_stored_one(small: str, capsys: Any) -> None:
    scores = Scores(0.123, 0.8, 0.7, 0.9, 0.95, 0.5)
    here = SimpleNamespace(data=SimpleNamespace(name="membranes"), profile=PROFILES["cpu"])
    board.beside_the_board("three convolutions", scores, here, results=small)  # type: ignore
    said = capsys.readouterr().out
    assert "0.123" in said
    assert "0.250 ± 0.071" in said
    assert "profile" not in said
    here.data.name = "mine"
    board.beside_the_board("three convolutions", scores, here, results=small)  # type: ignore
    assert "nothing is stored for mine" in capsys.readouterr().out
    here = SimpleNamespace(data=SimpleNamespace(name="membranes"), profile=PROFILES["gpu"])
    board.beside_the_board("three convolutions", scores, here, results=small)  # type: ignore
    assert "this run: profile gpu; stored: profile cpu" in capsys.readouterr().out


def test_curves_are_means_over_seeds(small: str) -> None:
    limits, curves = board.stored_distance_curves(
        ["three convolutions"], "membranes", results=small
    )
    assert limits == [1.0, math.inf]
    assert curves["three convolutions"] == pytest.approx([0.45, 0.1])
    assert board.stored_values("pixel_error", "membranes", results=small) == pytest.approx(
        {"Otsu's threshold": 0.35, "three convolutions": 0.25}
    )


def test_maps_of_an_untrained_network_are_probabilities(smoke: Any) -> None:
    (first, *_) = membrane_maps(smoke.build(), smoke.data.validation)
    assert first.shape == smoke.data.validation.labels[0].shape
    assert first.min() >= 0
    assert first.max() <= 1
