"""Tiles give what the whole image gives: for every network, size and tile, in little memory."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unet_tutorial import UNet, inference
from unet_tutorial.inference import Tile, predict, tile_plan
from unet_tutorial.partial import ContractingPath
from unet_tutorial.unet import initialize_he

CLOSE = 1e-5


def network(seed: int = 0, in_channels: int = 1, **options: Any) -> UNet:
    """Build a network whose answers depend on all that it sees: default weights forget it."""
    torch.manual_seed(seed)
    model = UNet(in_channels, 3, **{"base_channels": 2, **options})
    side = smallest_side(model)
    images = torch.rand(2, in_channels, side, side)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics of this batch, not a tenth of them
    while True:  # of networks with two channels many are dead, or nearly: they answer all alike
        initialize_he(model)
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.reset_running_stats()
            model.train()(images)
            logits = model.eval()(images)
            largest = logits.abs().max()
            if logits.std(dim=(0, 2, 3)).max() > 0.05 * largest > 0.01:
                # Logits of 100 occur, and what is right to seven digits differs in the fifth
                # place after the point: bring them to 1.
                for parameter in model.out.parameters():
                    parameter /= largest
                return model


def smallest_side(model: UNet) -> int:
    """Read off the message what the smallest tile is."""
    with pytest.raises(ValueError, match="the smallest") as caught:
        tile_plan(model, (5, 5), 1)
    return int(re.findall(r"(\d+), the smallest", str(caught.value))[0])


def difference(model: UNet, image: np.ndarray, tile: Any) -> float:
    """Compare with the whole image in one pass."""
    whole = predict(model, image, precision="float32", tile=None)
    tiled = predict(model, image, precision="float32", tile=tile)
    assert tiled.shape == whole.shape == (3, *image.shape[-2:])
    return float(np.abs(tiled - whole).max())


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_tiles_equal_the_whole_image_in_random_networks_sizes_and_tiles(depth, padding):
    rng = np.random.default_rng([depth, padding == "same"])
    cases = {1: 30, 2: 30, 3: 28, 4: 14}[depth]  # 204 with both paddings
    tiles = 0
    for case in range(cases):
        model = network(
            seed=case,
            in_channels=int(rng.integers(1, 4)),
            base_channels=int(rng.integers(2, 5)),
            depth=depth,
            padding=padding,
            norm=rng.choice(["batch", None]),
            upsampling=str(rng.choice(["transposed", "bilinear"])),
            skip=str(rng.choice(["concat", "add", "none"])),
        )
        # The very smallest tiles of a shallow network keep 2 pixels each: right, but slow.
        side = smallest_side(model) + 2**depth * int(rng.integers(4 if depth < 3 else 0, 9))
        height, width = (int(length) for length in rng.integers(1, 2 * side, size=2))
        image = rng.random((model.in_channels, height, width), dtype=np.float32)
        tiles += len(tile_plan(model, (height, width), side))
        assert difference(model, image, side) <= CLOSE, (model, height, width, side)
    assert tiles > 2 * cases  # or nothing has been shown


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 130), (131, 7)])
def test_images_smaller_than_tile_and_margin(size, padding):
    model = network(depth=3, padding=padding)
    image = np.random.default_rng(0).random(size, dtype=np.float32)
    assert difference(model, image, smallest_side(model)) <= CLOSE


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("depth", "size"), [(5, (40, 600)), (6, (1100, 30))])
def test_deep_networks(depth, size, padding):
    model = network(depth=depth, padding=padding)
    image = np.random.default_rng(0).random(size, dtype=np.float32)
    side = smallest_side(model)
    assert len(tile_plan(model, size, side)) > 1
    assert difference(model, image, side) <= CLOSE


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_automatic_tiles_equal_the_whole_image(padding, monkeypatch):
    monkeypatch.setattr(inference, "WHOLE_PIXELS", 120 * 80)
    monkeypatch.setattr(inference, "TILE_PIXELS", 120 * 80)
    model = network(depth=2, padding=padding)
    image = np.random.default_rng(0).random((203, 170), dtype=np.float32)
    assert len(tile_plan(model, image.shape)) > 2
    assert difference(model, image, "auto") <= CLOSE


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_every_pixel_is_answered_once_by_tiles_on_the_pooling_grid(padding):
    model = UNet(1, 2, base_channels=1, padding=padding)
    for size in [(388, 388), (512, 512), (1000, 37), (1234, 777)]:
        for tile in (None, "auto", smallest_side(model), smallest_side(model) + 48):
            plan = tile_plan(model, size, tile)
            answered = np.zeros(size, dtype=int)
            for one in plan:
                answered[slice(*one.output_rows), slice(*one.output_columns)] += 1
                assert (one.input_rows[0] - plan[0].input_rows[0]) % 16 == 0
                assert (one.input_columns[0] - plan[0].input_columns[0]) % 16 == 0
            assert (answered == 1).all()
            read = {
                (one.input_rows[1] - one.input_rows[0], one.input_columns[1] - one.input_columns[0])
                for one in plan
            }
            assert len(read) == 1


def test_the_paper_s_tile():
    """572 -> 388 (figure 2): 92 pixels on each side are read and not answered for."""
    model = UNet(1, 2, base_channels=1, padding="valid")
    assert tile_plan(model, (388, 388), 572) == [Tile((-92, 480), (-92, 480), (0, 388), (0, 388))]


def test_less_overlap_leaves_seams(monkeypatch):
    """The border of padded tiles is as wide as it has to be."""
    model = network(depth=2)
    image = np.random.default_rng(0).random((100, 100), dtype=np.float32)
    side = smallest_side(model) + 4
    assert difference(model, image, side) <= CLOSE
    needed = inference._border(model)
    monkeypatch.setattr(inference, "_border", lambda model: needed - 4)
    assert difference(model, image, side) > 100 * CLOSE


def test_tiles_off_the_pooling_grid_leave_seams(monkeypatch):
    """The paper's 388 is no multiple of 16."""
    model = network(depth=2, padding="valid")
    image = np.random.default_rng(0).random((130, 130), dtype=np.float32)
    side = smallest_side(model) + 8
    assert difference(model, image, side) <= CLOSE
    monkeypatch.setattr(
        inference._Overlap, "stride", lambda self, side: (side - 2 * self.border) // 4 * 4 - 2
    )
    assert difference(model, image, side) > 100 * CLOSE


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_mirrors_are_those_of_numpy(length):
    """Also where the image is mirrored more than once."""
    pixels = np.arange(length)
    expected = np.pad(pixels, (25, 31), mode="reflect" if length > 1 else "edge")
    assert np.array_equal(pixels[inference._mirrored((-25, length + 31), length)], expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("tile", [None, 36])
def test_flips_and_turns_are_those_made_by_hand(tile, padding):
    model = network(depth=1, padding=padding)
    image = np.random.default_rng(0).random((1, 50, 83), dtype=np.float32)
    slow = []
    for flip, quarters in itertools.product((False, True), range(4)):
        turned = torch.from_numpy(image).rot90(quarters, (1, 2))
        turned = turned.flip(2) if flip else turned
        found = torch.from_numpy(predict(model, turned, precision="float32", tile=None))
        found = found.flip(2) if flip else found
        slow.append(found.rot90(-quarters, (1, 2)).numpy())
    assert not np.allclose(slow[0], slow[1], atol=1e-3)
    fast = predict(model, image, precision="float32", tile=tile, flips_and_turns=True)
    assert np.abs(fast - np.mean(slow, axis=0)).max() <= CLOSE


def test_an_average_over_flips_and_turns_turns_with_the_image():
    model = network(depth=2)
    image = np.random.default_rng(0).random((40, 64), dtype=np.float32)
    found = predict(model, image, precision="float32", flips_and_turns=True)
    turned = predict(model, np.rot90(image), precision="float32", flips_and_turns=True)
    assert np.allclose(np.rot90(found, axes=(1, 2)), turned, atol=CLOSE)


@pytest.mark.parametrize(
    ("padding", "tile", "message"),
    [
        ("same", 500, r"tiles of 500 pixels, .* 96 on each side\. .*: 496 and 512\."),
        ("same", 64, r"work: 208, the smallest\."),
        ("same", -1, r"work: 208, the smallest\."),
        ("valid", 512, r"tiles of 512 pixels, .* 92 on each side\. .*: 508 and 524\."),
        ("valid", 188, r"work: 204, the smallest\."),
        ("same", 512.0, r"a whole number of pixels, got 512\.0"),
        ("same", True, r"a whole number of pixels, got True"),
        ("same", "all", r"'auto', None or a whole number of pixels, got 'all'"),
    ],
)
def test_tiles_that_cannot_work_are_refused_with_those_that_can(padding, tile, message):
    model = UNet(1, 2, base_channels=1, padding=padding)
    with pytest.raises(ValueError, match=message) as caught:
        predict(model, np.zeros((20, 20)), tile=tile)
    for side in re.findall(r"\d+", str(caught.value).partition("work: ")[2]):
        assert tile_plan(model, (2000, 20), int(side))


def test_networks_whose_reach_is_unknown_see_the_whole_image():
    model = ContractingPath(1, 2, base_channels=1, depth=1)
    assert len(tile_plan(model, (2000, 2000))) == 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ContractingPath.*tile=None"):
        predict(model, np.zeros((20, 20)), tile=32)  # type: ignore[arg-type]


def test_a_megapixel_goes_through_at_once_and_more_in_tiles():
    model = UNet(1, 2, base_channels=1)
    assert len(tile_plan(model, (1024, 1024))) == 1
    assert len(tile_plan(model, (1024, 1025))) > 1
    for size in [(4096, 4096), (300, 20000), (1030, 1030)]:
        plan = tile_plan(model, size)
        one = plan[0]
        read = np.diff(one.input_rows)[0] * np.diff(one.input_columns)[0]
        assert read <= 704**2
        assert len(plan) * read < 2 * size[0] * size[1]  # little is computed twice


def test_progress_counts_the_tiles(capfd):
    model = network(depth=1)
    image = np.zeros((60, 40), dtype=np.float32)
    number = 2 * 4 * len(tile_plan(model, image.shape, 24))
    predict(model, image, tile=24, flips_and_turns=True, progress=True)
    assert f"{number}/{number}" in capfd.readouterr().err
    predict(model, image, tile=24)
    assert capfd.readouterr().err == ""


MEASURE = """
import numpy as np
from unet_tutorial import UNet
from unet_tutorial.inference import predict

def resident(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

model = UNet(1, 2, base_channels=16, norm="batch")
image = np.random.default_rng(0).random((2048, 2048), dtype=np.float32)
before = resident("VmRSS")
predict(model, image)
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc to read from")
def test_memory_above_model_and_image_is_bounded():
    """The result takes 32 MB of it; all maps of the whole image would take 2 GB in bfloat16."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 500
