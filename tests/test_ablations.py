"""The paper's ideas taken away one at a time: data, counts, the script and what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from conftest import load_script
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.io import imsave

from unet_tutorial import UNet
from unet_tutorial._numbers import numbers_of_results
from unet_tutorial.ablations import (
    TITLES,
    compare_tiles,
    count_objects,
    error_by_frame,
    few_images,
    nuclei,
    predict_apart,
    seams,
    show_ablation,
    stored_by_images,
)
from unet_tutorial.datasets import SegmentationData, load, separate, touching_cells
from unet_tutorial.inference import predict
from unet_tutorial.losses import border_weight_map
from unet_tutorial.metrics import ObjectCounts, objects_found
from unet_tutorial.plots import plot_by_number, plot_tiles
from unet_tutorial.results import read_results, write_results

# ---- objects


def strip(*widths: int) -> np.ndarray:
    """Lay objects of these widths side by side, one pixel apart."""
    row: list[int] = []
    for number, width in enumerate(widths, start=1):
        row += [number] * width + [0]
    return np.array([row])


def test_a_perfect_mask_recovers_all_objects() -> None:
    objects = strip(5, 2, 9)
    assert objects_found(objects > 0, objects) == ObjectCounts(3, 3, 0, 0, 0)


def test_one_missing_pixel_of_a_border_merges_two_objects_of_alike_size() -> None:
    for widths, expected in (
        ((6, 6), ObjectCounts(2, 0, 2, 0, 0)),
        # With 24 of 45 pixels the larger one is still above one half; the smaller one is lost.
        ((6, 5), ObjectCounts(2, 1, 1, 0, 0)),
    ):
        objects = np.repeat(strip(*widths), 4, axis=0)
        bridged = objects > 0
        bridged[2, 6] = True
        assert objects_found(bridged, objects) == expected


def test_an_object_in_pieces_is_split_and_a_sliver_of_it_is_missed() -> None:
    objects = strip(9)
    in_pieces = np.array([[1, 1, 1, 0, 1, 1, 1, 0, 1, 0]])
    assert objects_found(in_pieces, objects) == ObjectCounts(1, 0, 0, 1, 0)
    sliver = np.array([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert objects_found(sliver, objects) == ObjectCounts(1, 0, 0, 0, 1)


def test_half_an_object_is_not_recovered_and_a_little_more_is() -> None:
    objects = strip(10)
    for width, recovered in ((5, 0), (6, 1)):
        mask = np.zeros_like(objects)
        mask[0, :width] = 1
        assert objects_found(mask, objects).recovered == recovered


def test_slices_are_counted_apart_and_summed() -> None:
    objects = strip(3, 3)
    counts = objects_found([objects > 0, np.zeros_like(objects)], [objects, objects])
    assert counts == ObjectCounts(4, 2, 0, 0, 2)


def test_masks_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="foreground must be a mask"):
        objects_found(np.array([[0.5, 1]]), np.array([[1, 2]]))
    with pytest.raises(ValueError, match="whole numbers from 0"):
        objects_found(np.array([[1, 1]]), np.array([[1, -2]]))
    with pytest.raises(ValueError, match="equal shapes"):
        objects_found(np.zeros((2, 2)), np.zeros((2, 3), int))


@given(st.integers(0, 10_000))
def test_every_object_is_of_one_kind(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 4, (6, 7))
    mask = rng.random((6, 7)) < 0.6
    found = objects_found(mask, objects)
    assert found.objects == len(np.unique(objects[objects > 0]))
    assert found.recovered + found.merged + found.split + found.missed == found.objects
    slow = 0
    parts, number = ndimage.label(mask)
    for one in np.unique(objects[objects > 0]):
        here = objects == one
        best = max(
            (
                np.sum(here & (parts == p)) / np.sum(here | (parts == p))
                for p in range(1, number + 1)
            ),
            default=0,
        )
        slow += best > 0.5
    assert found.recovered == slow


# ---- data


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
def test_background_comes_between_objects_that_touch_and_nowhere_else(kind: Any) -> None:
    objects = np.array([[1, 1, 1, 2, 2, 2, 0, 3, 3]], dtype=kind)
    assert separate(objects).tolist() == [[1, 1, 0, 0, 2, 2, 0, 3, 3]]
    assert separate(objects).dtype == kind
    assert separate(objects, 0).tolist() == objects.tolist()
    # A gap of one pixel between 2 and 3 is narrower than the one that is asked for.
    assert separate(objects, 4).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0, 3]]
    for gap in (1, -2):
        with pytest.raises(ValueError, match=f"even, 0 or more; got {gap}"):
            separate(objects, gap)


def test_touching_cells_are_told_apart_by_their_label_and_close_to_each_other() -> None:
    data = touching_cells(n_images=3, size=128)
    again = touching_cells(n_images=2, size=128)
    assert data.instances is not None
    assert np.array_equal(data.images[0], again.images[0])
    assert not np.array_equal(data.images[0], touching_cells(seed=1, n_images=2).images[0][:, :128])
    counts = objects_found(list(data.labels), list(data.instances))
    assert counts.recovered == counts.objects > 30
    for numbers, mask in zip(data.instances, data.labels, strict=True):
        assert np.array_equal(mask == 1, numbers > 0)
        assert np.mean(border_weight_map(numbers) > 5) > 0.02
    bridged = [ndimage.binary_closing(mask, np.ones((3, 3))) for mask in data.labels]
    assert objects_found(bridged, list(data.instances)).merged > 0.5 * counts.objects


def test_touching_cells_of_no_size_are_refused() -> None:
    with pytest.raises(ValueError, match="size=16"):
        touching_cells(size=16)


def test_nuclei_that_touch_are_separated_and_the_test_images_held_out(tmp_path: Path) -> None:
    assert nuclei(tmp_path) is None
    for part, number in (("train", 2), ("test", 1)):
        for kind in ("image", "label"):
            (tmp_path / part / kind).mkdir(parents=True)
        for index in range(number):
            cells = np.zeros((32, 32), np.uint8)
            cells[4:12, 4:12], cells[4:12, 12:20] = 1, 2
            imsave(tmp_path / part / "image" / f"{index}.png", 100 * (cells > 0).astype(np.uint8))
            imsave(tmp_path / part / "label" / f"{index}.png", cells, check_contrast=False)
    data = nuclei(tmp_path)
    assert data is not None
    assert data.instances is not None
    assert data.validation.image_names == ("test 0",)
    assert len(data.training) == 2
    assert ndimage.label(data.labels[0])[1] == 2, "touching in the file, apart in the label"


def test_fewer_images_are_among_more_and_come_from_both_halves() -> None:
    data = load("membranes", n_images=30, size=32)
    chosen = {n: set(few_images(data, n, 5).training.image_names) for n in (1, 2, 10, 20)}
    assert chosen[1] < chosen[2] < chosen[10] < chosen[20]
    halves = [int(name.split()[1]) < 15 for name in chosen[10]]
    assert sum(halves) == 5
    assert chosen[20] == set(data.training.image_names)
    first = few_images(data, 1, 0).training.image_names[0]
    assert int(first.split()[1]) < 15
    assert few_images(data, 3).validation.image_names == data.validation.image_names
    with pytest.raises(ValueError, match="20 images to train on, asked for 21"):
        few_images(data, 21)


def test_objects_of_unknown_number_are_not_counted() -> None:
    data = SegmentationData(
        "plain", "", (np.zeros((1, 32, 32), np.float32),), (np.zeros((32, 32), np.uint8),),
        ("a", "b"), (), ("one",),
    )  # fmt: skip
    with pytest.raises(ValueError, match="plain has no instances"):
        count_objects(UNet(1, 2, base_channels=2, depth=2), data)


# ---- tiles


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    return UNet.preset("paper", 1, 2, base_channels=2, depth=2, padding="same").eval()


def test_tiles_apart_are_wrong_at_their_seams_and_right_where_they_see_enough(
    network: UNet,
) -> None:
    image = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    whole = predict(network, image, precision="float32", tile=None)
    alone = predict_apart(network, image, 128, precision="float32")
    assert np.array_equal(alone, whole)
    apart = predict_apart(network, image, 64, precision="float32")
    found = compare_tiles([apart], [whole], 64)
    assert found["largest_difference"] > 0.01
    assert found["mean_difference_at_seams"] > 30 * found["mean_difference_elsewhere"]
    away = ~seams((128, 128), 64, reach=32)
    assert np.abs(apart - whole)[:, away].max() < 1e-5, "further than the network sees"


def test_changed_decisions_are_counted_near_seams_and_elsewhere() -> None:
    whole = np.zeros((2, 64, 64))
    whole[0] = 1
    piece = whole.copy()
    piece[:, 0, 32], piece[:, 0, 0] = (0, 1), (0, 1)
    near = seams((64, 64), 32, reach=16)
    assert near.sum() == 64**2 - 32**2
    found = compare_tiles([piece], [whole], 32)
    assert found["changed_at_seams"] == 1 / near.sum()
    assert found["changed_elsewhere"] == 1 / (~near).sum()
    assert found["largest_difference"] == 1


def test_errors_of_frames_are_those_counted_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    guess, truth = rng.integers(0, 2, (2, 40, 50))
    found = error_by_frame([guess], [truth], frames=(3, 7))
    for name, (start, stop) in {
        "error_0_3": (0, 3), "error_3_7": (3, 7), "error_7_on": (7, 99)
    }.items():  # fmt: skip
        wrong = [
            guess[r, c] != truth[r, c]
            for r in range(40)
            for c in range(50)
            if start <= min(r, c, 39 - r, 49 - c) < stop
        ]
        assert found[name] == pytest.approx(np.mean(wrong))
    small = np.zeros((8, 8), int)
    assert np.isnan(error_by_frame([small], [small])["error_92_on"])


# ---- the script


def test_the_script_writes_parts_and_seeds_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_TUTORIAL_DATA", str(tmp_path))  # where no nuclei are
    main, out = load_script("ablations").main, tmp_path / "ablations.json"
    smoke = {"out": out, "profile": "smoke", "dataset": "membranes", "seeds": 3}
    main(**smoke, part=["padding"], seed=[1])
    main(**smoke, part=["padding"], seed=[0])
    (later,) = {row["seed"] for row in json.loads(out.read_text())["rows"][2:]}
    assert later == 1, "seeds in order, whatever was measured first"
    main(**smoke, part=["elastic", "weight map"], seed=[0])
    fresh, stored = json.loads(out.read_text()), read_results("ablations")
    assert [row["part"] for row in fresh["rows"]][:1] == ["elastic"]
    assert {(row["part"], row["seed"]) for row in fresh["rows"]} == {
        ("elastic", 0), ("weight map", 0), ("padding", 0), ("padding", 1)
    }  # fmt: skip
    assert set(fresh["settings"]) == set(stored["settings"])
    for part in ("elastic", "weight map", "padding"):
        (shape,) = {tuple(row) for row in fresh["rows"] if row["part"] == part}
        assert shape in {tuple(row) for row in stored["rows"] if row["part"] == part}
    changed = json.loads(out.read_text()) | {"machine": {"cores": 64}}
    out.write_text(json.dumps(changed))
    monkeypatch.setitem(main.__globals__, "fit", None)  # nothing is measured in vain
    with pytest.raises(ValueError, match="another machine"):
        main(**smoke, part=["padding"], seed=[0])
    with pytest.raises(typer.BadParameter, match="unknown part 'elastics'"):
        main(**smoke, part=["elastics"])


def test_stored_ablations_are_complete() -> None:
    rows = read_results("ablations")["rows"]
    assert {row["seed"] for row in rows} == {0, 1, 2}
    keys = [(r["part"], r["dataset"], r["seed"], r["images"], r["variant"]) for r in rows]
    assert len(set(keys)) == len(keys)
    for seed in (0, 1, 2):
        mine = {key[:2] + key[3:] for key in keys if key[2] == seed}
        assert {(images, variant) for part, _, images, variant in mine if part == "elastic"} == {
            (images, variant) for images in (1, 3, 10, 20) for variant in ("not bent", "bent")
        }
        assert {name for part, name, *_ in mine if part == "weight map"} == {
            "touching-cells", "nuclei"
        }  # fmt: skip
        assert {variant for part, *_, variant in mine if part == "padding"} == {
            "padded", "unpadded"
        }  # fmt: skip


def test_overlapping_tiles_of_the_stored_run_changed_nothing() -> None:
    rows = [row for row in read_results("ablations")["rows"] if row["part"] == "padding"]
    for row in rows:
        if row["variant"] == "unpadded":
            assert row["largest_difference"] < 1e-5
            assert row["changed_at_seams"] == row["changed_elsewhere"] == 0
        else:
            assert row["largest_difference"] > 0.1


def test_objects_of_the_stored_run_add_up() -> None:
    for row in read_results("ablations")["rows"]:
        if row["part"] == "weight map":
            kinds = ("recovered", "merged", "split", "missed")
            assert sum(row[kind] for kind in kinds) == row["objects"]
            assert sum(row[f"{kind}_share"] for kind in kinds) == pytest.approx(1)


# ---- what the chapter prints


@pytest.fixture
def small(tmp_path: Path) -> str:
    rows: list[dict[str, Any]] = [
        {"part": "elastic", "dataset": "membranes", "seed": seed, "images": images,
         "variant": variant, "pixel_error": 0.1 * images + seed / 10}
        for seed in (0, 1)
        for images in (1, 3)
        for variant in ("not bent", "bent")
    ]  # fmt: skip
    rows += [
        {"part": "weight map", "dataset": "cells", "seed": seed, "images": 4, "variant": "on",
         "merged_share": 0.25, "objects": 8}
        for seed in (0, 1)
    ]  # fmt: skip
    file = tmp_path / "small.json"
    write_results(file, rows, description="", settings={})
    return str(file)


def test_ablations_are_shown_with_mean_and_spread(small: str, capsys: Any) -> None:
    show_ablation("elastic", "pixel_error", results=small)
    said = capsys.readouterr().out
    assert "membranes, 2 seeds" in said
    assert " 3 images, bent" in said
    assert "0.350 ± 0.071" in said
    show_ablation("weight map", "merged_share", results=small)
    assert "\non " in capsys.readouterr().out, "one number of images is not repeated"
    with pytest.raises(ValueError, match="no part 'padding'"):
        show_ablation("padding", "pixel_error", results=small)


def test_curves_hold_mean_and_spread_by_number_of_images(small: str) -> None:
    curves = stored_by_images("elastic", "pixel_error", results=small)
    assert curves["bent"][3] == (pytest.approx(0.35), pytest.approx(0.0707, abs=1e-4))
    figure = plot_by_number(curves, xlabel="images", ylabel="error")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(curves)


def test_every_column_that_is_shown_is_stored() -> None:
    stored = {name for row in read_results("ablations")["rows"] for name in row}
    assert set(TITLES) <= stored


def test_rows_of_several_kinds_have_their_means_looked_up(small: str) -> None:
    values = {number.value for number in numbers_of_results(read_results(small))}
    assert any(value is not None and abs(float(value) - 0.35) < 1e-9 for value in values)


def test_tiles_are_drawn_one_by_one(network: UNet) -> None:
    from unet_tutorial.inference import tile_plan

    valid = UNet(1, 2, base_channels=1, depth=2, padding="valid")
    tiles = tile_plan(valid, (64, 64), 100)
    figure = plot_tiles(np.zeros((64, 64)), tiles)
    assert len(figure.axes) == len(tiles)
    for panel, tile in zip(figure.axes, tiles, strict=True):
        read, kept = panel.patches
        assert read.get_width() == tile.input_columns[1] - tile.input_columns[0]
        assert kept.get_height() == tile.output_rows[1] - tile.output_rows[0]
