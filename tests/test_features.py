"""Looking inside a network shows its real maps, and the same colors everywhere."""

import numpy as np
import pytest
import torch

from unet_tutorial import UNet
from unet_tutorial.features import principal_colors, stage_features
from unet_tutorial.partial import ContractingPath
from unet_tutorial.shapes import trace_shapes


@pytest.mark.parametrize("model", [UNet(1, 2, base_channels=2), UNet(1, 2, base_channels=2, depth=2,
                         skip="none"), ContractingPath(1, 2, base_channels=2, bottleneck=True),
                         ContractingPath(1, 2, base_channels=2)])  # fmt: skip
def test_stages_have_the_names_and_shapes_of_the_trace(model):
    trace = trace_shapes(model, (32, 48))
    image = np.random.default_rng(0).random((1, 32, 48), np.float32)
    stages = [s for s in trace if s.name.startswith(("enc", "dec")) or s.name == "bottleneck"]
    assert len(stages) >= 4
    for stage in stages:
        assert stage_features(model, image, stage.name).shape == stage.output


def test_features_are_what_the_next_layer_gets():
    model = UNet(1, 2, base_channels=2).eval()
    image = np.random.default_rng(0).random((1, 32, 32), np.float32)
    last = torch.from_numpy(stage_features(model, image, "dec1"))[None]
    with torch.no_grad():
        assert torch.allclose(model.out(last), model(torch.from_numpy(image)[None]), atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_an_unknown_stage_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match=r"no stage .out.; this network has enc1, enc2, enc3, enc4"):
        stage_features(ContractingPath(1, 2, base_channels=2), np.zeros((1, 16, 16)), "out")


def test_colors_tell_places_apart_and_have_no_sign_of_their_own():
    rng = np.random.default_rng(1)
    features = rng.normal(scale=0.01, size=(6, 8, 8))
    features[0, :, :4] += 3
    picture = principal_colors(features)
    assert picture[:, :4, 0].min() > picture[:, 4:, 0].max()
    assert np.allclose(picture, principal_colors(features.copy()))
    flat = principal_colors(np.ones((1, 4, 4)))
    assert flat.shape == (4, 4, 3)
    assert np.isfinite(flat).all()
