"""Crops are bent, turned and changed as drawn, images and labels together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import cpu_seconds
from scipy import ndimage

from unet_tutorial.augmentation import (
    change_gray,
    deform,
    elastic_displacement,
    look_up,
    random_crops,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel with PyTorch's parameter."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def slow_bicubic(coarse: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate with corners on corners, pixel by pixel; beyond the grid its edge is repeated."""
    points = len(coarse)
    result = np.zeros(size)
    for row, column in np.ndindex(*size):
        y = row * (points - 1) / (size[0] - 1)
        x = column * (points - 1) / (size[1] - 1)
        for i in range(math.floor(y) - 1, math.floor(y) + 3):
            for j in range(math.floor(x) - 1, math.floor(x) + 3):
                value = coarse[np.clip(i, 0, points - 1), np.clip(j, 0, points - 1)]
                result[row, column] += value * cubic(y - i) * cubic(x - j)
    return result


@pytest.mark.parametrize(("size", "grid"), [((31, 31), 3), ((24, 40), 3), ((20, 17), 5)])
def test_displacements_are_bicubic_between_gaussian_vectors(
    size: tuple[int, int], grid: int
) -> None:
    found = elastic_displacement(2, size, std=10, grid=grid, generator=chance(1))
    coarse = 10 * torch.randn(2, 2, grid, grid, generator=chance(1))
    for n in range(2):
        for axis in range(2):
            expected = slow_bicubic(coarse[n, axis].numpy(), size)
            assert np.abs(found[n, axis].numpy() - expected).max() < 1e-4


def test_displacements_have_the_papers_size() -> None:
    found = elastic_displacement(400, (33, 33), generator=chance())
    corners = found[:, :, ::32, ::32]
    assert corners.std().item() == pytest.approx(10, rel=0.05)
    assert abs(corners.mean().item()) < 0.7
    neighbors = (found[:, :, 1:] - found[:, :, :-1]).abs().max()
    assert neighbors < 10, "smooth: neighbors move alike"


@pytest.mark.parametrize("shape", [(40, 40), (21, 64), (1, 9)])
def test_deformed_pairs_are_those_of_scipy(shape: tuple[int, int]) -> None:
    image = torch.rand(1, 2, *shape, generator=chance(2))
    labels = torch.randint(5, (1, *shape), generator=chance(3))
    moved = 9 * torch.randn(1, 2, *shape, generator=chance(4))
    bent, marks = deform(image, labels, moved)
    places = np.indices(shape) + moved[0].double().numpy()
    for channel in range(2):
        expected = ndimage.map_coordinates(
            image[0, channel].double().numpy(), places, order=1, mode="mirror"
        )
        assert np.abs(bent[0, channel].numpy() - expected).max() < 1e-4
    nearest = ndimage.map_coordinates(labels[0].numpy(), places, order=0, mode="mirror")
    # At the middle between two pixels either is the nearest.
    tie = (np.abs(np.abs(places - np.round(places)) - 0.5) < 1e-3).any(axis=0)
    assert (marks[0].numpy() == nearest)[~tie].all()
    assert marks.dtype == labels.dtype


def test_image_and_labels_bend_together() -> None:
    yes = torch.zeros(1, 200, 200)
    yes[:, 40:110, 60:160] = 1
    crops, marks = random_crops(
        [yes],
        [yes[0].long()],
        size=128,
        number=12,
        generator=chance(),
        elastic=10,
        rotation=True,
    )
    assert 0.05 < marks.float().mean() < 0.6
    assert ((crops[:, 0] > 0.5) == (marks == 1)).float().mean() > 0.999
    straight, _ = random_crops([yes], [yes[0].long()], size=128, number=12, generator=chance())
    assert not torch.equal(crops, straight)


def test_free_turning_turns_by_all_angles_and_keeps_lengths() -> None:
    line = torch.zeros(1, 257, 257)
    line[:, 128, :] = 1
    crops, _ = random_crops(
        [line],
        [line[0].long()],
        size=257,
        number=40,
        generator=chance(5),
        flips_and_turns=False,
        rotation=True,
    )
    angles = []
    for crop in crops[:, 0].numpy():
        rows, columns = np.nonzero(crop > 0.5)
        close = (rows - 128) ** 2 + (columns - 128) ** 2 < 100**2  # beyond it is mirrored
        steep = np.linalg.eigh(np.cov(rows[close], columns[close]))[1][:, -1]
        angles.append(math.degrees(math.atan2(steep[0], steep[1])) % 180)
        assert close.sum() == pytest.approx(200, rel=0.45)
    assert np.histogram(angles, bins=6, range=(0, 180))[0].min() >= 2


def test_without_bending_crops_are_the_pixels_themselves() -> None:
    image = torch.rand(1, 50, 60, generator=chance())
    places = torch.stack(
        torch.meshgrid(torch.arange(7.0, 23), torch.arange(11.0, 27), indexing="ij")
    )
    values, marks = look_up(image, (image[0] * 9).long(), places)
    assert torch.allclose(values, image[:, 7:23, 11:27], atol=1e-5)
    assert torch.equal(marks, (image[0] * 9).long()[7:23, 11:27])


def test_gray_changes_brightness_and_contrast_of_each_image_by_its_own() -> None:
    images = torch.rand(6, 2, 20, 20, generator=chance())
    changed = change_gray(images, 0.3, chance(1))
    for before, after in zip(images, changed, strict=True):
        slope, shift = np.polyfit(before.flatten().numpy(), after.flatten().numpy(), 1)
        assert torch.allclose(after, slope * before + shift, atol=1e-5)
        assert 0.7 <= slope <= 1.3
        assert abs((after.mean() - before.mean()).item()) <= 0.15 + 1e-6
    slopes = changed.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert slopes.std() > 0.02
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        change_gray(images, 2, chance())


def test_the_same_seed_draws_the_same_crops() -> None:
    image, labels = torch.rand(1, 64, 64), torch.zeros(64, 64).long()

    def draw(seed: int) -> torch.Tensor:
        return random_crops(
            [image], [labels], size=32, number=2, generator=chance(seed), elastic=5, rotation=True
        )[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.alone
def test_a_512_pair_is_bent_quickly() -> None:
    images, labels = torch.rand(1, 1, 512, 512), torch.randint(2, (1, 512, 512))

    def bend() -> None:
        deform(images, labels, elastic_displacement(1, (512, 512), generator=chance()))

    def bend_by_scipy() -> None:
        coarse = np.random.default_rng(0).normal(0, 10, (2, 3, 3))
        shifts = np.stack([ndimage.zoom(one, 512 / 3, order=3) for one in coarse])
        places = np.indices((512, 512)) + shifts
        ndimage.map_coordinates(images[0, 0].numpy(), places, order=1, mode="mirror")
        ndimage.map_coordinates(labels[0].numpy(), places, order=0, mode="mirror")

    # By turns on one core, since milliseconds depend on more than the bending: 8 become 18 where
    # memory goes back to the system between calls, 15 to 21 with kernels for CPUs without AVX.
    # scipy takes four to seven times as long, and with those kernels 2.8 to 3.8 times.
    ours, scipys = cpu_seconds(bend, bend_by_scipy)
    print(f"{1e3 * ours:.1f} ms, scipy {1e3 * scipys:.1f} ms")
    assert ours < scipys / 2


def test_a_grid_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="grid=1, std=10"):
        elastic_displacement(1, (8, 8), grid=1, generator=chance())
