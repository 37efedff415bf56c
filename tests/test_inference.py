"""Prediction takes any image and gives back every pixel; surgery undoes itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_tutorial import UNet
from unet_tutorial.devices import choose_device, choose_precision, describe_machine
from unet_tutorial.inference import predict
from unet_tutorial.surgery import cut_skips, skip_shares


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["same", "valid"]))
def test_every_pixel_of_every_size_gets_its_probabilities(height, width, padding):
    model = UNet(2, 3, base_channels=1, depth=2, padding=padding)
    probabilities = predict(model, np.random.default_rng(0).random((2, height, width)))
    assert probabilities.shape == (3, height, width)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-2)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_size_that_fits_is_not_resampled(padding):
    """Every output pixel lies where its input pixel lies."""
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=2, depth=2, padding=padding).eval()
    image = torch.rand(1, 84, 84)
    with torch.no_grad():
        plain = model(image[None]).softmax(1)[0].numpy()
    found = predict(model, image, precision="float32")
    lost = (84 - plain.shape[1]) // 2
    inside = slice(lost, 84 - lost)
    # An unpadded network sees the same pixels wherever the pooling grid falls on the same rows.
    assert np.allclose(found[:, inside, inside], plain, atol=1e-5) == (lost % 4 == 0)


def test_eight_bit_images_are_scaled_as_in_training():
    model = UNet(1, 2, base_channels=2, depth=1)
    image = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    assert np.array_equal(predict(model, image), predict(model, image / np.float32(255)))


def test_prediction_keeps_the_mode_and_leaves_no_trace():
    model = UNet(1, 2, base_channels=2, depth=1, norm="batch", dropout=0.5).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (predict(model, np.ones((16, 16))) for _ in range(2))
    assert model.training
    assert np.array_equal(first, second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 16, 16)), r"got \(3, 16, 16\)"),
        (np.zeros((0, 16)), "expected an image"),
        (np.zeros((16, 16), np.int32), "scale the image"),
        (np.full((16, 16), np.nan), "not finite"),
    ],
)
def test_what_is_no_image_is_refused_with_the_repair(image, message):
    with pytest.raises(ValueError, match=message):
        predict(UNet(1, 2, base_channels=1, depth=1), image)


def test_a_cut_skip_carries_nothing_and_grows_together_again():
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=2, depth=2).eval()
    image, carried = torch.rand(1, 1, 16, 16), []
    handle = model.expansive[1].conv.register_forward_pre_hook(
        lambda module, inputs: carried.append(inputs[0])
    )
    whole = model(image)
    with cut_skips(model, 1):
        model(image)
    handle.remove()
    assert carried[0][:, 2:].any()
    assert not carried[1][:, 2:].any()
    assert torch.equal(carried[0][:, :2], carried[1][:, :2])
    assert torch.equal(model(image), whole)


def test_cuts_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match="no skip connection"), cut_skips(UNet(1, 2, skip="none")):
        pass
    with pytest.raises(ValueError, match="levels are 1 to 2"):
        with cut_skips(UNet(1, 2, base_channels=1, depth=2), 3):
            pass
    with pytest.raises(ValueError, match="two halves"):
        skip_shares(UNet(1, 2, base_channels=1, skip="add"), np.zeros((16, 16)))


def test_a_skip_whose_weights_are_zero_has_no_share():
    model = UNet(1, 2, base_channels=2, depth=2)
    with torch.no_grad():
        model.expansive[1].conv.conv_block[0].weight[:, 2:] = 0
        model.expansive[0].conv.conv_block[0].weight[:, :4] = 0
    shares = skip_shares(model, np.random.default_rng(0).random((1, 32, 32)))
    assert shares == {1: 0.0, 2: 1.0}


def test_devices_and_precisions_that_are_not_there_are_refused():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="'cuda' is not available here"):
            choose_device("cuda")
    with pytest.raises(ValueError, match="'float32', 'bfloat16', 'float16'"):
        choose_precision(torch.device("cpu"), "int8")


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_precision_follows_the_generation_of_the_gpu(monkeypatch, capability, expected):
    """A T4 (7.5) says that it supports bfloat16, and only emulates it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(torch.device("cuda")) == expected


def test_a_cpu_without_bfloat16_arithmetic_stays_in_float32(monkeypatch):
    monkeypatch.setattr("unet_tutorial.devices._cpu_bfloat16_units", list)
    assert choose_precision(torch.device("cpu")) == "float32"


def test_the_description_of_the_machine_does_not_name_it():
    import platform

    assert platform.node() not in str(describe_machine()) or not platform.node()
