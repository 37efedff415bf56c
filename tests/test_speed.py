"""The rungs of the ladder train the same network, and the plain loop is its lowest rung."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_script

from unet_tutorial import UNet, speed
from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.results import read_results
from unet_tutorial.shapes import trace_shapes
from unet_tutorial.speed import (
    Rung,
    climb,
    crops_per_second,
    ladder,
    matrix_rate,
    numpy_crop,
    peak_memory,
    plain_loop,
    show_ladder,
    training_flops,
)

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return load("membranes", n_images=4, size=64).training


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(1, 2, base_channels=2, depth=2, norm="batch")


def test_the_lowest_rung_is_the_plain_loop_number_for_number(data: SegmentationData) -> None:
    ours, theirs = network(), network()
    plain = list(islice(plain_loop(ours, data, crop_size=32, seed=3), 4))
    rung = list(islice(climb(theirs, data, Rung("plain"), crop_size=32, seed=3), 4))
    assert plain == rung
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))  # noqa: B905


@pytest.mark.parametrize(
    "rung", [rung for rung in ladder(CPU) if not rung.compiled], ids=lambda rung: rung.name
)
def test_every_rung_learns(rung: Rung, data: SegmentationData) -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=8, depth=2, norm="batch")
    losses = [float(loss) for loss in islice(climb(model, data, rung, crop_size=32), 50)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_each_rung_changes_one_thing() -> None:
    for device, kept in ((CPU, 4), (torch.device("cuda"), 16)):
        if device.type == "cuda" and not torch.cuda.is_available():
            continue
        rungs = ladder(device)
        assert [rung.batch_size for rung in rungs[2:]] == [kept] * 5
        plain, larger, *rest = rungs
        assert replace(larger, name=plain.name, batch_size=plain.batch_size) == plain
        below = plain if device.type == "cpu" else larger
        for rung in rest:
            names = set(vars(rung)) - {"name"}
            changed = {name for name in names if getattr(rung, name) != getattr(below, name)}
            assert len(changed) == 1 or (changed == set() and rung.precision == "float32")
            below = rung


def test_layout_and_optimizer_change_nothing_but_rounding(data: SegmentationData) -> None:
    plain = next(climb(network(), data, Rung("plain"), crop_size=32))
    other = next(climb(network(), data, Rung("x", channels_last=True, fused=True), crop_size=32))
    half = next(climb(network(), data, Rung("x", precision="bfloat16"), crop_size=32))
    assert other == pytest.approx(plain, rel=1e-5)
    assert half == pytest.approx(plain, rel=0.02)
    assert half != plain


def test_a_loss_on_the_device_is_not_waited_for(data: SegmentationData) -> None:
    loss = next(climb(network(), data, Rung("x", on_device=True), crop_size=32))
    assert isinstance(loss, torch.Tensor)
    assert not loss.requires_grad, "else every step of the training stays in memory"


def test_numpy_crops_keep_image_and_labels_together() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (40, 50)).astype(np.uint8)
    data = SegmentationData(
        name="x",
        description="",
        images=(labels[None].astype(np.float32),),
        labels=(labels,),
        class_names=("a", "b"),
        validation_indices=(),
        image_names=("x",),
    )
    chance = np.random.default_rng(1)
    crops = [numpy_crop(data, 24, chance) for _ in range(40)]
    assert all(np.array_equal(image[0], mark) for image, mark in crops)
    windows = {
        np.rot90(view[top : top + 24, left : left + 24], turns).tobytes()
        for view in (labels.astype(np.int64),)
        for top in range(17)
        for left in range(27)
        for turns in range(4)
    }
    turned_only = sum(mark.tobytes() in windows for _, mark in crops)
    assert 5 < turned_only < 35, "about half of the crops are mirrored as well"


def test_training_costs_three_forward_passes() -> None:
    with torch.device("meta"):
        model = UNet(1, 2)
    assert training_flops(model, (256, 256)) == 6 * trace_shapes(model, (256, 256)).multiply_adds
    # The table of the paper's network: 192.384 billion multiply-adds at 512².
    assert training_flops(model, (512, 512)) == pytest.approx(6 * 192.384e9, rel=1e-4)


def test_speed_is_steps_times_batch_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    loop = iter(range(100))
    assert crops_per_second(loop, 5, 4, CPU) == 5 * 4 / 2
    assert next(loop) == 5, "no step more than asked for"


def test_matrix_rate_counts_two_operations_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    assert matrix_rate(CPU, "float32", side=32) == 2 * 32**3 / 0.5


def test_peak_memory_sees_what_was_freed_again() -> None:
    size = 2**29  # bytes
    peak, now = speed._resident("VmHWM"), speed._resident("VmRSS")
    found = peak_memory(lambda: torch.ones(size // 4).sum(), CPU)
    # Where this process has held more before, its peak is that; else it is what was freed again.
    assert found == pytest.approx(max(size / 2**20, (peak - now) / 1024), rel=0.1)


@pytest.mark.parametrize("base", [16, 64])
def test_the_stored_ladder_has_every_rung_and_adds_up(base: int) -> None:
    rows = [row for row in read_results("ladder")["rows"] if row["base_channels"] == base]
    by_name = {row["name"]: row for row in rows}
    assert [rung.name for rung in ladder(CPU)] == list(by_name)[:7]
    assert "fit" in by_name
    measured = [row for row in rows if row["crops_per_second"] is not None]
    assert len(measured) >= 8
    plain = by_name["plain loop"]["crops_per_second"]
    for row in measured:
        assert row["slowest"] <= row["crops_per_second"] <= row["fastest"]
        assert row["times_plain"] == pytest.approx(row["crops_per_second"] / plain, rel=0.02)
        assert 0 < row["share_of_matrix_rate"] < 1
    for row in rows:
        assert (row["crops_per_second"] is None) == bool(row["note"])


def test_show_ladder_prints_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    show_ladder(16, ["plain loop", "fit"])
    lines = capsys.readouterr().out.splitlines()
    assert "trillion operations a second" in lines[1]
    assert [line[:10].strip() for line in lines[2:]] == ["base 16", "plain loop", "fit"]
    with pytest.raises(ValueError, match=r"base channels \[16, 64\], not 17"):
        show_ladder(17)


def test_the_script_says_why_a_rung_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder_script = load_script("ladder")

    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", no_compiler)

    def not_there(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_there)
    known = ladder_script.entries(CPU, "cpu")
    assert known["compiled"] == "not measured: torch.compile says: No working C++ compiler found"
    assert not any("MONAI" in name for name in known)
    assert known["fit"].fitted
    assert "pip install --no-deps monai" in capsys.readouterr().out


def test_the_moving_average_follows_the_weights_and_leaves_them_alone(
    data: SegmentationData,
) -> None:
    quality = load_script("quality")
    alone, followed = network(), network()
    list(islice(plain_loop(alone, data, crop_size=32), 3))
    expected = None
    with quality.moving_average(followed, decay=0.5) as average:
        for _ in islice(plain_loop(followed, data, crop_size=32), 3):
            now = followed.out.weight.detach().clone()
            expected = now if expected is None else 0.5 * expected + 0.5 * now
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), followed.parameters()))  # noqa: B905
    assert torch.allclose(average.out.weight, expected)
    before = average.out.weight.clone()
    list(islice(plain_loop(followed, data, crop_size=32), 1))
    assert torch.equal(before, average.out.weight), "after the block nothing follows any more"
