"""The training learns, repeats itself, and stops with a reason."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from unet_tutorial import UNet
from unet_tutorial import training as training_module
from unet_tutorial.augmentation import random_crops
from unet_tutorial.datasets import load
from unet_tutorial.losses import cross_entropy, soft_dice_loss
from unet_tutorial.training import NonFiniteLossError, TrainingConfig, fit

SMALL = TrainingConfig(steps=6, batch_size=2, crop_size=32, device="cpu")


@pytest.fixture(scope="module")
def data():
    return load("membranes", n_images=4, size=64)


def network(seed=0, **options):
    torch.manual_seed(seed)
    return UNet(1, 2, **{"base_channels": 4, "depth": 2, "norm": "batch", **options})


def changed(config=SMALL, **fields):
    return dataclasses.replace(config, **fields)


def test_a_short_training_beats_guessing(data):
    config = changed(steps=60, batch_size=4, precision="float32", validate_every=30)
    result = fit(network(), data, config, report=None)
    always_cell = np.mean([np.mean(labels) for labels in data.validation.labels])
    assert np.mean(result.losses[-10:]) < 0.7 * np.mean(result.losses[:5])
    assert [scores.step for scores in result.validations] == [30, 60]
    assert result.validations[-1].pixel_error < always_cell
    assert result.validations[-1].dice > 0.3


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_same_seed_gives_the_same_weights(data, precision):
    config = changed(precision=precision)
    first = fit(network(dropout=0.3), data, config, report=None).model.state_dict()
    second = fit(network(dropout=0.3), data, config, report=None).model.state_dict()
    other = fit(network(dropout=0.3), data, changed(config, seed=1), report=None).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_leaves_other_peoples_chance_alone(data):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model = UNet(1, 2, base_channels=2, depth=1)
    torch.manual_seed(7)
    fit(model, data, SMALL, report=None)
    assert torch.equal(torch.rand(3), expected)


def test_half_precision_with_loss_scaling_learns_on_the_cpu(data):
    config = changed(steps=40, precision="float16")
    result = fit(network(), data, config, report=None)
    assert result.precision == "float16"
    assert np.mean(result.losses[-5:]) < 0.8 * np.mean(result.losses[:5])
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


def test_validation_images_are_never_trained_on(data, monkeypatch):
    seen = []

    def spy(images, labels, **options):
        seen.extend(images)
        return random_crops(images, labels, **options)

    monkeypatch.setattr(training_module, "random_crops", spy)
    fit(network(), data, SMALL, report=None)
    for held_out in data.validation.images:
        assert not any(np.array_equal(held_out, image.numpy()) for image in seen)
    assert seen


def test_an_unpadded_network_learns_every_pixel_that_it_answers_for(data, monkeypatch):
    # The labels say what the image says, so what the loss compares can be checked.
    marked = dataclasses.replace(
        data, labels=tuple((image[0] > 0.5).astype(np.uint8) for image in data.images)
    )
    compared, crops = [], []
    plain_loss, plain_gray = training_module._loss, training_module.change_gray

    def spy(logits, labels, *rest):
        compared.append((logits.shape, labels))
        return plain_loss(logits, labels, *rest)

    def watch(images, *rest):
        crops.append(images)
        return plain_gray(images, *rest)

    monkeypatch.setattr(training_module, "_loss", spy)
    monkeypatch.setattr(training_module, "change_gray", watch)
    model = network(padding="valid")
    config = changed(steps=40, crop_size=68, gray=0.01, learning_rate=1e-2, precision="float32")
    result = fit(model, marked, config, report=None)
    for (shape, labels), images in zip(compared, crops, strict=True):
        assert shape == (2, 2, 28, 28)  # 68 - 40: two levels take 4, 8, 16, 8, 4
        assert torch.equal(labels, (images[:, 0, 20:48, 20:48] > 0.5).long())
    share = np.mean([labels.mean() for labels in marked.validation.labels])
    assert result.validations[-1].pixel_error < 0.7 * min(share, 1 - share)


def test_an_unpadded_network_is_trained_on_the_border_of_the_image_too(data, monkeypatch):
    # Where the network reads is 68 pixels wide, the image 64: only mirroring makes it possible.
    rows, columns = np.mgrid[:64, :64].astype(np.uint8)
    labels = tuple((rows, columns + 64)[index % 2] for index in range(len(data)))
    numbered = dataclasses.replace(data, labels=labels)
    trained: set[int] = set()

    def collect(logits, labels, *rest):
        trained.update(labels.unique().tolist())
        return logits.mean() * 0

    monkeypatch.setattr(training_module, "_loss", collect)
    model = UNet(1, 128, base_channels=1, depth=2, padding="valid")
    whole = dataclasses.replace(numbered, validation_indices=())
    fit(model, whole, changed(steps=60, batch_size=4, crop_size=68), report=None)
    assert trained == set(range(128)), "every row and every column"


def test_without_held_out_images_there_is_no_score_but_a_network(data):
    everything = dataclasses.replace(data, validation_indices=())
    config = changed(validate_every=2, snapshot_every=2)
    result = fit(network(), everything, config, report=None)
    assert result.steps_done == config.steps
    assert result.validations == result.snapshots == []


def test_an_interrupted_training_returns_what_there_is(data, monkeypatch):
    calls = itertools.count()

    def interrupted(images, labels, **options):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return random_crops(images, labels, **options)

    monkeypatch.setattr(training_module, "random_crops", interrupted)
    said = []
    result = fit(network(), data, SMALL, report=said.append)
    assert result.interrupted
    assert result.steps_done == len(result.learning_rates) == 3
    assert "after step 3 of 6" in said[-1]
    assert not result.model.training


def test_a_loss_that_is_no_number_stops_with_step_and_causes(data, monkeypatch):
    losses = itertools.count(1)

    def broken(logits, labels, **weights):
        value = cross_entropy(logits, labels, **weights)
        return value * float("nan") if next(losses) == 4 else value

    monkeypatch.setattr(training_module, "cross_entropy", broken)
    with pytest.raises(NonFiniteLossError, match=r"nan at step 4 of 6.*learning rate.*0.003"):
        fit(network(), data, SMALL, report=None)


def test_a_learning_rate_beyond_reason_ends_in_that_error(data):
    config = changed(steps=60, learning_rate=1e12, precision="float16")
    with pytest.raises(NonFiniteLossError, match="float16, which overflows"):
        fit(network(norm=None), data, config, report=None)


def test_progress_tells_loss_speed_and_score(data):
    said = []
    fit(network(), data, changed(steps=20, validate_every=10), report=said.append)
    assert len(said) == 10
    assert "step   20/20" in said[-1]
    assert "loss" in said[0]
    assert "crops/s" in said[0]
    assert "pixel error" in said[-1]
    assert "pixel error" not in said[0]


def test_snapshots_are_probabilities_of_the_first_held_out_image(data):
    result = fit(network(), data, changed(snapshot_every=2), report=None)
    assert [step for step, _ in result.snapshots] == [2, 4, 6]
    for _, probabilities in result.snapshots:
        assert probabilities.shape == (2, 64, 64)
        assert np.allclose(probabilities.astype(float).sum(axis=0), 1, atol=2e-3)


def test_the_schedule_warms_up_and_falls_to_almost_nothing(data):
    rates = fit(network(), data, changed(steps=20), report=None).learning_rates
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(3e-3, rel=0.05)
    assert rates[0] < 0.1 * rates[peak] > rates[-1]
    assert rates[: peak + 1] == sorted(rates[: peak + 1])


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (UNet(1, 2, base_channels=1, padding="valid"), changed(crop_size=190), "188x188, 204x204"),
        (UNet(3, 2, base_channels=1), SMALL, r"UNet\(1, ...\)"),
        (UNet(1, 1, base_channels=1), SMALL, "labels are class indices"),
        (UNet(1, 2, base_channels=1), changed(crop_size=40), "40x40 .* 32x32, 48x48"),
        (UNet(1, 2, base_channels=1), changed(crop_size=128), "smaller than the crop"),
    ],
)
def test_what_does_not_suit_is_refused_before_training(data, model, config, message):
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        fit(model, data, config, report=None)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_images_with_holes_are_refused_by_name(data):
    images = (np.full_like(data.images[0], np.nan), *data.images[1:])
    with pytest.raises(ValueError, match=f"image {data.image_names[0]} holds values"):
        fit(network(), dataclasses.replace(data, images=images), SMALL, report=None)


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"batch_size": 1.5}, {"learning_rate": -1}, {"loss": "focal"}]
)
def test_settings_out_of_range_are_refused_by_name(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        TrainingConfig(**fields)


def test_crops_move_image_and_labels_together_in_all_eight_ways():
    image = torch.arange(16.0).reshape(1, 4, 4)
    generator = torch.Generator().manual_seed(0)
    crops, labels = random_crops([image], [image[0]], size=4, number=200, generator=generator)
    assert torch.equal(crops[:, 0], labels)
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) == 8
    straight, _ = random_crops(
        [image], [image[0]], size=4, number=5, generator=generator, flips_and_turns=False
    )
    assert all(torch.equal(crop, image) for crop in straight)


def test_crops_come_from_everywhere():
    image = torch.arange(36.0).reshape(1, 6, 6)
    generator = torch.Generator().manual_seed(0)
    crops, _ = random_crops(
        [image], [image[0]], size=4, number=300, generator=generator, flips_and_turns=False
    )
    corners = {crop[0, 0, 0].item() for crop in crops}
    assert corners == {row * 6 + column for row in range(3) for column in range(3)}


def test_cross_entropy_is_minus_the_log_of_the_right_class():
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    right = logits.softmax(1).gather(1, labels[:, None])
    assert cross_entropy(logits, labels).item() == pytest.approx(-right.log().mean().item())


def test_soft_dice_is_zero_when_right_and_near_one_when_wrong():
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :32] = 1
    sure = 50 * nn.functional.one_hot(labels, 2).movedim(-1, 1).float()
    assert soft_dice_loss(sure, labels).item() == pytest.approx(0, abs=1e-4)
    assert soft_dice_loss(-sure, labels).item() == pytest.approx(1, abs=1e-3)
    assert soft_dice_loss(sure, labels) < soft_dice_loss(sure * 0.01, labels)


def test_dice_in_the_loss_is_added_and_trained(data):
    plain = fit(network(), data, SMALL, report=None)
    both = fit(network(), data, changed(loss="cross-entropy+dice"), report=None)
    assert both.losses[0] > plain.losses[0] + 0.1
