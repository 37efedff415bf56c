"""The network is the one that the sources describe, and takes exactly the sizes that it says."""

import math

import pytest
import torch
import torchinfo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unet_tutorial import DoubleConvolution, DownSampling, SizeError, UNet, UpSampling
from unet_tutorial.blocks import center_crop
from unet_tutorial.documents import article_namespace
from unet_tutorial.shapes import trace_shapes
from unet_tutorial.unet import check_size, fits, initialize_he

ArticleUNet = article_namespace()["UNet"]


def layers_as_they_run(model, image):
    ran = []
    leaves = [m for m in model.modules() if not list(m.children()) and type(m) is not nn.Identity]
    hooks = [leaf.register_forward_hook(lambda m, *_: ran.append(repr(m))) for leaf in leaves]
    model(image)
    for hook in hooks:
        hook.remove()
    return ran


def test_the_default_network_is_the_code_articles():
    article, ours = ArticleUNet(1, 2), UNet(1, 2)
    image = torch.rand(1, 1, 32, 48)
    assert layers_as_they_run(ours, image) == layers_as_they_run(article, image)

    theirs = list(article.parameters())
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs]
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs, strict=True):
            mine.copy_(other)
        assert torch.equal(ours(image), article(image))


def test_the_default_keeps_pytorchs_initialization():
    torch.manual_seed(0)
    theirs = [p.clone() for p in ArticleUNet(1, 2).parameters()]
    torch.manual_seed(0)
    ours = list(UNet(1, 2).parameters())
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_papers_preset_draws_its_weights_after_he():
    model = UNet.preset("paper", 1, 2, base_channels=32)
    first, second = model.contracting[1].conv.conv_block[0], model.expansive[0].up
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.02)
    assert second.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    assert not first.bias.any()


def test_he_initialization_keeps_the_size_of_the_signal():
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(256, 128, kernel_size=2, stride=2)
    initialize_he(up)
    signal = torch.randn(1, 256, 16, 16).relu()
    assert up(signal).relu().square().mean().item() == pytest.approx(
        signal.square().mean().item(), rel=0.1
    )


def test_the_papers_network_has_31_030_658_parameters_and_23_convolutions():
    with torch.device("meta"):
        model = UNet(1, 2, padding="valid")
        normalized = UNet(1, 2, norm="batch")
        small = UNet(1, 2, base_channels=16)
    assert sum(p.numel() for p in model.parameters()) == 31_030_658
    assert sum(p.numel() for p in normalized.parameters()) == 31_036_546
    assert sum(p.numel() for p in small.parameters()) == 1_940_834
    kinds = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(kinds) == 23
    assert sum(m.kernel_size == (3, 3) for m in kinds) == 18
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in kinds) == 4


@pytest.mark.parametrize("name", ["article", "notes", "paper"])
def test_presets_take_changes(name):
    model = UNet.preset(name, 3, 4, base_channels=2, depth=1)
    assert (model.options["base_channels"], model.depth) == (2, 1)
    assert model.padding == ("valid" if name == "paper" else "same")
    assert model(torch.rand(1, 3, 48, 48)).shape == (
        1,
        4,
        *check_size(48, 48, depth=1, padding=model.padding),
    )


def test_the_notes_network_has_no_convolution_bias_before_normalization():
    model = UNet.preset("notes", 1, 2, base_channels=4)
    blocks = [m for m in model.modules() if isinstance(m, DoubleConvolution)]
    assert all(block.conv_block[0].bias is None for block in blocks)
    assert all(isinstance(block.conv_block[1], nn.BatchNorm2d) for block in blocks)


def test_dropout_sits_at_the_end_of_the_contracting_path():
    model = UNet(1, 2, base_channels=2, dropout=0.5)
    names = [name for name, _ in model.named_children()]
    assert names.index("bottleneck") < names.index("dropout") < names.index("expansive")
    assert isinstance(model.dropout, nn.Dropout)


options = st.fixed_dictionaries(
    {
        "base_channels": st.integers(1, 5),
        "depth": st.sampled_from([1, 1, 2, 2, 3, 3, 4]),
        "padding": st.sampled_from(["same", "valid"]),
        "norm": st.sampled_from([None, "batch"]),
        "upsampling": st.sampled_from(["transposed", "bilinear"]),
        "skip": st.sampled_from(["concat", "add", "none"]),
        "dropout": st.sampled_from([0.0, 0.3]),
    }
)


@st.composite
def networks_and_sizes(draw):
    """Any small network with any size: half of the sizes are chosen to fit."""
    chosen = draw(options)
    step = 2 ** chosen["depth"]
    largest = 4 * step if chosen["padding"] == "same" else 12 * step + 2 * step
    size = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    if draw(st.booleans()):
        lengths = [n for n in range(1, largest + 1) if _fits(n, chosen)]
        size = draw(st.tuples(st.sampled_from(lengths), st.sampled_from(lengths)))
    channels, classes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return UNet(channels, classes, **chosen), size, draw(st.booleans())


def _fits(length, chosen):
    return fits(length, depth=chosen["depth"], padding=chosen["padding"])


@settings(max_examples=2000, deadline=None)
@given(networks_and_sizes())
def test_sizes_either_fit_as_traced_or_are_refused_with_sizes_that_do(case):
    """2,000 random networks and sizes: the trace, the error and PyTorch itself agree."""
    model, size, training = case
    model.train(training)
    image = torch.rand(1, model.in_channels, *size)
    if not all(_fits(length, model.options) for length in size):
        with pytest.raises(SizeError, match=f"{size[0]}x{size[1]}") as caught, torch.no_grad():
            model(image)
        with pytest.raises(SizeError):
            trace_shapes(model, size)
        assert caught.value.stage in str(caught.value)
        model.eval()
        for height, width in caught.value.nearest:
            assert f"{height}x{width}" in str(caught.value)
            with torch.no_grad():
                assert model(torch.rand(1, model.in_channels, height, width)).numel() > 0
        return
    trace = trace_shapes(model, size)
    if (
        training
        and model.options["norm"]
        and model.padding == "same"
        and set(size) == {2**model.depth}
    ):
        with pytest.raises(ValueError, match="batch normalization cannot train"):
            model(image)
        image = image.expand(2, -1, -1, -1)
    seen = {}
    for number, down in enumerate(model.contracting, start=1):
        down.conv.register_forward_hook(_note(seen, f"enc{number}"))
        down.pool.register_forward_hook(_note(seen, f"pool{number}"))
    model.bottleneck.register_forward_hook(_note(seen, "bottleneck"))
    for number, up in zip(range(model.depth, 0, -1), model.expansive, strict=True):
        up.up.register_forward_hook(_note(seen, f"up{number}"))
        up.conv.register_forward_pre_hook(
            lambda m, inputs, n=number: seen.update({f"skip{n}": tuple(inputs[0].shape[1:])})
        )
        up.conv.register_forward_hook(_note(seen, f"dec{number}"))
    model.out.register_forward_hook(_note(seen, "out"))
    with torch.no_grad():
        logits = model(image)
    assert tuple(logits.shape[1:]) == trace.output
    for stage in trace:
        assert stage.output == seen[stage.name], stage.name
    assert trace.parameters == sum(p.numel() for p in model.parameters())


def _note(seen, name):
    return lambda m, inputs, output: seen.update({name: tuple(output.shape[1:])})


@settings(max_examples=400, deadline=None)
@given(networks_and_sizes())
def test_wherever_pytorch_alone_would_fail_so_does_the_rule(case):
    model, size, training = case
    model.train(training)
    image = torch.rand(1, model.in_channels, *size)

    def accepts(run):
        try:
            with torch.no_grad():
                run(image)
        except (RuntimeError, ValueError):
            return False
        return True

    with_the_rule = accepts(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UNet, "_check", lambda self, images: None)
        without_the_rule = accepts(model)
    assert without_the_rule or not with_the_rule


@pytest.mark.parametrize(
    ("size", "options", "stage", "nearest"),
    [
        ((39, 39), {}, "pool1", [(32, 32), (48, 48)]),
        ((512, 520), {}, "pool4", [(512, 512), (512, 528)]),
        ((8, 512), {}, "pool4", [(16, 512)]),
        ((512, 512), {"padding": "valid"}, "pool3", [(508, 508), (524, 524)]),
        ((0, 16), {}, "enc1", [(16, 16)]),
        ((3, 3), {"padding": "valid"}, "enc1", [(188, 188)]),
        ((24, 24), {"padding": "valid", "depth": 2}, "bottleneck", [(44, 44)]),
    ],
)
def test_a_size_that_does_not_fit_is_named_with_its_stage_and_neighbors(
    size, options, stage, nearest
):
    with pytest.raises(SizeError, match=f"{size[0]}x{size[1]}") as caught:
        check_size(*size, **options)
    assert (caught.value.size, caught.value.stage, caught.value.nearest) == (size, stage, nearest)
    for height, width in nearest:
        check_size(height, width, **options)


def test_the_rule_is_the_same_where_no_skip_would_notice():
    """PyTorch would floor 39 to 19 and hand back 38 rows; a class per pixel needs all 39."""
    for skip in ("concat", "add", "none"):
        with pytest.raises(SizeError, match="39"):
            UNet(1, 2, base_channels=1, depth=1, skip=skip)(torch.zeros(1, 1, 39, 39))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(32, 32), r"\(N, 1, H, W\), got \(32, 32\)"),
        (torch.zeros(1, 3, 32, 32), r"got \(1, 3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "uint8"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_with_the_repair(image, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, 2, base_channels=1)(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"base_channels": 2.5}, "base_channels"),
        ({"padding": "reflect"}, "padding must be 'same' or 'valid', got 'reflect'"),
        ({"norm": "layer"}, "norm must be None or 'batch'"),
        ({"upsampling": "nearest"}, "upsampling"),
        ({"skip": "residual"}, "skip must be 'concat' or 'add' or 'none'"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, 2, **options)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="'article', 'notes', 'paper'"):
        UNet.preset("keras", 1, 2)


def test_a_skip_that_cannot_meet_is_refused():
    with pytest.raises(ValueError, match="38x38"):
        center_crop(torch.zeros(1, 1, 39, 39), (38, 38))
    with pytest.raises(ValueError, match="needs the skip"):
        UpSampling(4, 2)(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="odd"):
        UpSampling(3, 2)


def test_the_order_of_concatenation_is_a_permutation_of_the_next_weights():
    """The code article joins (upsampled, skip), the notes (skip, upsampled): the same network."""
    torch.manual_seed(0)
    block = UpSampling(8, 4)
    below, skip = torch.rand(1, 8, 8, 8), torch.rand(1, 4, 16, 16)
    with torch.no_grad():
        expected = block(below, skip)
        first = block.conv.conv_block[0]
        first.weight.copy_(torch.cat((first.weight[:, 4:], first.weight[:, :4]), dim=1))
        swapped = block.conv(torch.cat((skip, block.up(below)), dim=1))
    assert torch.allclose(swapped, expected, atol=1e-6)


def test_down_sampling_hands_back_two_tensors():
    down, pool = DownSampling(1, 2)(torch.rand(1, 1, 8, 8))
    assert torch.equal(pool, nn.functional.max_pool2d(down, 2))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("skip", ["concat", "add", "none"])
def test_torchinfo_agrees_on_the_parameters_of_every_variant(padding, norm, upsampling, skip):
    model = UNet(
        1, 2, base_channels=2, depth=2, padding=padding, norm=norm, upsampling=upsampling, skip=skip
    )
    summary = torchinfo.summary(model, (1, 1, 60, 60), verbose=0)
    assert summary.total_params == trace_shapes(model, (60, 60)).parameters
