"""The losses and weight maps are those of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import cpu_seconds
from scipy import ndimage
from skimage.measure import label

from unet_tutorial.datasets import load
from unet_tutorial.losses import balanced_class_weights, border_weight_map, cross_entropy


def slow_border_weights(instances: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Compute the definition: the distance of every pixel to every cell."""
    numbers = [number for number in np.unique(instances) if number]
    if len(numbers) < 2:
        return np.zeros(instances.shape)
    far = np.sort([ndimage.distance_transform_edt(instances != n) for n in numbers], axis=0)
    weights = w0 * np.exp(-((far[0] + far[1]) ** 2) / (2 * sigma**2))
    return np.where(instances == 0, weights, 0)


def blobs(size: int, number: int, seed: int) -> np.ndarray:
    """Draw cells of many shapes, some of them touching or cut by the border."""
    chance = np.random.default_rng(seed)
    centers = chance.integers(0, size, (number, 2))
    radii = chance.integers(1, max(size // 8, 3), number)
    instances = np.zeros((size, size), np.int32)
    rows, columns = np.indices(instances.shape)
    for k, ((row, column), radius) in enumerate(zip(centers, radii, strict=True), start=1):
        instances[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = 3 * k  # gaps
    return instances


@pytest.mark.parametrize("seed", range(12))
def test_border_weights_are_those_of_the_definition(seed: int) -> None:
    chance = np.random.default_rng(seed)
    instances = blobs(int(chance.integers(9, 130)), int(chance.integers(0, 30)), seed)
    w0, sigma = float(chance.uniform(0.5, 20)), float(chance.uniform(1, 9))
    found = border_weight_map(instances, w0=w0, sigma=sigma)
    assert found.dtype == np.float32
    assert np.abs(found - slow_border_weights(instances, w0, sigma)).max() <= 1e-5 * max(w0, 1)


def test_border_weights_rise_as_two_cells_approach() -> None:
    heaviest = []
    for gap in (20, 10, 5, 3, 1):
        instances = np.zeros((16, 60), int)
        instances[4:12, 5:15] = 1
        instances[4:12, 15 + gap : 25 + gap] = 2
        heaviest.append(border_weight_map(instances).max())
    assert heaviest == sorted(heaviest)
    # One pixel in between lies one pixel from both: 10 exp(-(1 + 1)² / 50).
    assert heaviest[-1] == pytest.approx(10 * np.exp(-4 / 50), rel=1e-6)


@pytest.mark.alone
def test_border_weights_of_real_cells_come_fast() -> None:
    instances = label(load("membranes", n_images=2, size=512).labels[0] == 0, connectivity=1)
    assert instances.max() > 80
    whole = instances == 0

    # The naive way transforms the whole image once for each cell, and takes a second. By turns with
    # one such transform, since one machine needs twice the milliseconds of another: 30 to 70.
    ours, one = cpu_seconds(
        lambda: border_weight_map(instances), lambda: ndimage.distance_transform_edt(whole)
    )
    print(f"{1e3 * ours:.0f} ms, one transform {1e3 * one:.0f} ms")
    assert ours < 5 * one


def test_border_weights_refuse_what_is_no_map() -> None:
    with pytest.raises(ValueError, match=r"expected cell numbers.*float64 of shape \(2, 2\)"):
        border_weight_map(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="negative"):
        border_weight_map(np.array([[-1, 0]]))
    with pytest.raises(ValueError, match="sigma above 0, got w0=10"):
        border_weight_map(np.zeros((2, 2), int), sigma=0)


def test_weighted_cross_entropy_is_the_weighted_mean() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 7), torch.randint(3, (2, 5, 7))
    classes, pixels = torch.tensor([0.5, 1.0, 4.0]), torch.rand(2, 5, 7)
    total, weight_sum = 0.0, 0.0
    for n in range(2):
        for row in range(5):
            for column in range(7):
                truth = int(labels[n, row, column])
                chance = logits[n, :, row, column].softmax(0)[truth]
                weight = float(classes[truth] + pixels[n, row, column])
                total -= weight * float(chance.log())
                weight_sum += weight
    found = cross_entropy(logits, labels, class_weights=classes, weight_map=pixels)
    assert found.item() == pytest.approx(total / weight_sum, rel=1e-5)
    plain = cross_entropy(logits, labels)
    assert cross_entropy(logits, labels, class_weights=torch.ones(3)).item() == pytest.approx(
        plain.item(), rel=1e-6
    )
    none = torch.zeros(2, 5, 7)
    assert cross_entropy(logits, labels, weight_map=none).item() == pytest.approx(plain.item())


def test_balanced_classes_weigh_alike() -> None:
    labels = [np.array([[0, 0, 0, 2]]), np.array([[0, 2, 0, 0]])]
    weights = balanced_class_weights(labels, 4)
    assert weights.dtype == np.float32
    counts = np.array([6, 0, 2, 0])
    assert (weights * counts)[0] == pytest.approx((weights * counts)[2])
    assert (weights * counts).sum() == pytest.approx(8), "a pixel weighs 1 on average"
    assert weights[1] == weights[3] == 1
