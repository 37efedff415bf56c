"""The traced shapes, counts and fields of view are those of the real network."""

import pytest
import torch
import torchinfo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unet_tutorial import DownSampling, SizeError, UNet
from unet_tutorial.partial import ContractingPath, ThreeConvolutions
from unet_tutorial.shapes import allowed_sizes, receptive_field, trace_shapes

# name: (C, size valid), (C, size padded), parameters, GMAC valid, GMAC padded (paper, figure 1)
PAPER = {
    "enc1": ((64, 568), (64, 512), 37_568, 12.080, 9.815),
    "enc2": ((128, 280), (128, 256), 221_440, 17.424, 14.496),
    "enc3": ((256, 136), (256, 128), 885_248, 16.526, 14.496),
    "enc4": ((512, 64), (512, 64), 3_539_968, 14.802, 14.496),
    "bottleneck": ((1024, 28), (1024, 32), 14_157_824, 11.645, 14.496),
    "up4": ((512, 56), (512, 64), 2_097_664, None, None),
    "dec4": ((512, 52), (512, 64), 7_078_912, 21.783, 31.138),
    "up3": ((256, 104), (256, 128), 524_544, None, None),
    "dec3": ((256, 100), (256, 128), 1_769_984, 19.589, 31.138),
    "up2": ((128, 200), (128, 256), 131_200, None, None),
    "dec2": ((128, 196), (128, 256), 442_624, 18.537, 31.138),
    "up1": ((64, 392), (64, 512), 32_832, None, None),
    "dec1": ((64, 388), (64, 512), 110_720, 18.023, 31.138),
    "out": ((2, 388), (2, 512), 130, 0.019, 0.034),
}


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_papers_figure_stage_by_stage(padding):
    size, column = ((572, 572), 0) if padding == "valid" else ((512, 512), 1)
    with torch.device("meta"):
        trace = trace_shapes(UNet(1, 2, padding=padding), size)
    for name, row in PAPER.items():
        stage = trace[name]
        channels, length = row[column]
        assert stage.output == (channels, length, length), name
        assert stage.parameters == row[2], name
        multiply_adds = stage.multiply_adds
        if name.startswith("dec"):  # the table counts the up-convolution with its stage
            multiply_adds += trace[f"up{stage.level}"].multiply_adds
        if row[3 + column] is not None:
            # The table adds the two rounded parts of a stage of the expansive path.
            assert multiply_adds / 1e9 == pytest.approx(row[3 + column], abs=6e-4), name
    assert trace.parameters == 31_030_658
    assert round(trace.multiply_adds / 1e9, 3) == (150.428 if padding == "valid" else 192.384)


def test_the_papers_crops():
    with torch.device("meta"):
        trace = trace_shapes(UNet(1, 2, padding="valid"), (572, 572))
    assert [trace[f"skip{n}"].crop for n in (4, 3, 2, 1)] == [(4, 4), (16, 16), (40, 40), (88, 88)]
    sizes = [[layer.output[1] for layer in trace[f"enc{n}"].layers if layer.kernel == 3]
             for n in (1, 2, 3, 4)]  # fmt: skip
    assert sizes == [[570, 568], [282, 280], [138, 136], [66, 64]]
    assert [layer.output[1] for layer in trace["bottleneck"].layers if layer.kernel == 3] == [
        30,
        28,
    ]


def test_torchinfo_counts_biases_and_output_sizes_instead():
    """torchinfo: 218.3 G for the padded network at 512², against 192.4 G products summed."""
    with torch.device("meta"):
        model = UNet(1, 2)
    summary = torchinfo.summary(model, (1, 1, 512, 512), verbose=0, device="meta")
    trace = trace_shapes(model, (512, 512))
    assert summary.total_params == trace.parameters
    assert round(summary.total_mult_adds / 1e9, 1) == 218.3
    assert round(trace.multiply_adds / 1e9, 1) == 192.4
    ours = 0
    for stage in trace:
        before = stage.input
        for layer in stage.layers:
            channels, height, width = layer.output
            if layer.operation == "2×2 up-convolution":  # weights taken once per output pixel
                ours += height * width * layer.parameters
            elif layer.parameters:
                ours += layer.multiply_adds + channels * height * width  # one per bias
            before = layer.output
        assert before == stage.output
    assert ours == summary.total_mult_adds


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"padding": "valid", "skip": "add"},
                                     {"upsampling": "bilinear", "skip": "none"}])  # fmt: skip
def test_activation_bytes_are_the_new_maps_of_a_real_forward_pass(options):
    model = UNet(1, 2, base_channels=2, depth=2, **options).eval()
    size = (60, 60)
    written: dict[int, int] = {}
    keep = []

    def note(tensor):
        keep.append(tensor)
        written[tensor.data_ptr()] = tensor.numel() * tensor.element_size()

    for module in model.modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(lambda m, inputs, output: note(output))
    for up in model.expansive:
        if options.get("skip") != "none":
            up.conv.register_forward_pre_hook(lambda m, inputs: note(inputs[0]))
    with torch.no_grad():
        model(torch.rand(1, 1, *size))
    assert trace_shapes(model, size).activation_bytes == sum(written.values())


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_allowed_sizes_are_those_that_the_network_takes(padding, depth):
    model = UNet(1, 1, base_channels=1, depth=depth, padding=padding)
    taken = []
    for length in range(1, 14 * 2**depth):
        try:
            with torch.no_grad():
                model(torch.zeros(1, 1, length, length))
        except SizeError:
            continue
        taken.append(length)
    assert allowed_sizes(model, maximum=14 * 2**depth - 1) == taken


def test_allowed_sizes_of_the_papers_network():
    model = UNet(1, 2, base_channels=1, padding="valid")
    assert allowed_sizes(model, maximum=600) == list(range(188, 601, 16))
    assert 572 in allowed_sizes(model)


def gradient_support(model, name, pixel, size):
    """Rows and columns of the image that a value depends on, by differentiation.

    Positive weights and average instead of maximum pooling, so that nothing cancels or hides.
    """
    for down in model.contracting:
        down.pool = nn.AvgPool2d(2, 2)
    for weights in model.parameters():
        nn.init.constant_(weights, 1e-2)
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    maps = []
    model.get_submodule(name).register_forward_hook(lambda m, inputs, output: maps.append(output))
    model.double()(image)
    (gradient,) = torch.autograd.grad(maps[0][0, 0, pixel[0], pixel[1]], image)
    rows, columns = torch.nonzero(gradient[0, 0], as_tuple=True)
    return (rows.min().item(), rows.max().item()), (columns.min().item(), columns.max().item())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_receptive_fields_are_the_support_of_the_gradients(data):
    depth = data.draw(st.integers(1, 3))
    model = UNet(
        1,
        1,
        base_channels=1,
        depth=depth,
        padding=data.draw(st.sampled_from(["same", "valid"])),
        upsampling=data.draw(st.sampled_from(["transposed", "bilinear"])),
        skip=data.draw(st.sampled_from(["concat", "add", "none"])),
    )
    lengths = allowed_sizes(model, maximum=16 * 2**depth)
    size = data.draw(st.sampled_from(lengths)), data.draw(st.sampled_from(lengths))
    modules = {"bottleneck": "bottleneck", "out": "out"}
    for n in range(depth):
        modules[f"enc{n + 1}"] = f"contracting.{n}.conv"
        modules[f"pool{n + 1}"] = f"contracting.{n}.pool"
        modules[f"up{depth - n}"] = f"expansive.{n}.up"
        modules[f"dec{depth - n}"] = f"expansive.{n}.conv"
    stage = data.draw(st.sampled_from(sorted(modules)))
    _, height, width = trace_shapes(model, size)[stage].output
    pixel = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    found = receptive_field(model, stage, pixel, size=size)
    support = gradient_support(model, modules[stage], pixel, size)
    assert (found.rows, found.columns) == support


def test_the_field_of_the_papers_depth_is_204_pixels_for_three_quarters_of_the_rows():
    model = UNet(1, 2, base_channels=1)
    heights = [receptive_field(model, "out", (row, row)).height for row in range(16)]
    assert (heights.count(204), heights.count(188)) == (12, 4)
    assert receptive_field(model, "bottleneck").height == 140


def test_a_field_cut_by_the_border_belongs_to_one_pixel():
    model = UNet(1, 2, base_channels=1)
    with pytest.raises(ValueError, match="pass pixel="):
        receptive_field(model, size=(512, 512))
    with pytest.raises(ValueError, match="outside the 512×512 map"):
        receptive_field(model, pixel=(512, 0), size=(512, 512))
    with pytest.raises(KeyError, match="no stage 'encoder'"):
        receptive_field(model, "encoder")


def test_small_compositions_of_the_blocks_are_traced_too():
    class ContractingPath(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = DownSampling(1, 4)
            self.out = nn.Conv2d(4, 2, kernel_size=1)
            self.stretch = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

        def forward(self, images):
            return self.stretch(self.out(self.down(images)[1]))

    trace = trace_shapes(ContractingPath(), (32, 32), in_channels=1)
    assert [stage.name for stage in trace] == ["enc1", "pool1", "out", "stretch"]
    assert trace.output == (2, 32, 32)
    with pytest.raises(ValueError, match="pass in_channels="):
        trace_shapes(ContractingPath(), (32, 32))


def test_tracing_changes_neither_weights_nor_mode():
    model = UNet(1, 2, base_channels=2, depth=1, norm="batch").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_shapes(model, (16, 16))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("maps", "normalized"), [(8, 16), (1, 16), (8, 1)])
def test_a_normalization_for_other_maps_is_refused_as_in_a_run(maps, normalized):
    layers = nn.Conv2d(1, maps, 3), nn.BatchNorm2d(normalized), nn.Conv2d(maps, 2, 1)
    model = nn.Sequential(*layers).eval()
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 1, 9, 9))
    with pytest.raises(RuntimeError):
        trace_shapes(model, (9, 9), in_channels=1)


def test_layers_that_inherit_do_what_they_do():
    class Halving(nn.BatchNorm2d):
        def forward(self, maps):
            return super().forward(maps)[..., ::2, ::2]

    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Halving(4), nn.Conv2d(4, 2, 1)).eval()
    assert trace_shapes(model, (8, 8), in_channels=1).output == (2, 4, 4)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 4, 4)


def test_the_printed_table_ends_with_the_sums():
    with torch.device("meta"):
        trace = trace_shapes(UNet(1, 2), (512, 512))
    last = str(trace).splitlines()[-1]
    megabytes = f"{trace.activation_bytes / 1e6:.1f}"
    assert last.split() == ["all", "2×512×512", "31,030,658", "192.384", megabytes]
    assert [row["name"] for row in trace.as_rows()] == [stage.name for stage in trace]
    assert len(trace) == 22


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_networks_of_the_earlier_chapters_see_what_their_gradients_say(bottleneck):
    for pixel in [(0, 0), (31, 30), (33, 63)]:
        model = ContractingPath(1, 1, base_channels=1, depth=2, bottleneck=bottleneck)
        found = receptive_field(model, "stretch", pixel, size=(64, 64))
        support = gradient_support(model, "stretch", pixel, (64, 64))
        assert (found.rows, found.columns) == support
    three = ThreeConvolutions(1, 1, base_channels=1)
    assert receptive_field(three).height == 7


def test_the_contracting_path_is_the_left_half_of_the_network():
    half = trace_shapes(ContractingPath(1, 2, base_channels=4, bottleneck=True), (64, 64))
    whole = trace_shapes(UNet(1, 2, base_channels=4), (64, 64))
    shared = [stage.name for stage in half][:-2]
    assert shared == [stage.name for stage in whole][: len(shared)]
    assert all(half[name] == whole[name] for name in shared)
    with pytest.raises(SizeError, match="39x39"):
        ContractingPath(1, 2, base_channels=1)(torch.zeros(1, 1, 39, 39))
