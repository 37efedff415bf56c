"""What every stage of a network does to the shape: sizes, parameters, arithmetic, memory, sight.

Everything is read off the real modules. `trace_shapes` sends a tensor without contents (PyTorch's
``meta`` device) through a copy of the network without weights, so that the largest network is
traced in milliseconds, and writes down what each layer receives and hands on. Whether a size fits
is asked of `unet_tutorial.unet.check_size`; this module has no rule of its own.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unet_tutorial.blocks import DoubleConvolution, DownSampling, UpSampling
from unet_tutorial.unet import UNet, fits

Shape = tuple[int, int, int]


@runtime_checkable
class Traced(Protocol):
    """A network with stages that are not the blocks of this package: it names them itself."""

    def traced_parts(self) -> list[tuple[str, str, list[nn.Module]]]:
        """List name, operation and modules, which run one after another, of each such stage."""


@dataclass(frozen=True)
class Layer:
    """One layer of a stage, as it ran.

    Attributes
    ----------
    operation : str
        What it does, in the words of the book: ``"3×3 convolution"``, ``"2×2 max pooling"``, ...
    output : (int, int, int)
        Channels, height and width that it hands on.
    kernel, stride, border : int
        Geometry; ``border`` is the padding, and the stride of an upsampling its factor.
    parameters, multiply_adds : int
        Weights and biases; products summed, for one image. Biases, normalization, ReLU, pooling
        and interpolation are not counted as multiply-adds.
    new_bytes : int
        Memory of the output in float32 for one image; 0 when the layer works in place.
    """

    operation: str
    output: Shape
    kernel: int = 1
    stride: int = 1
    border: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    new_bytes: int = 0


@dataclass(frozen=True)
class Stage:
    """One stage of the U: a double convolution, a pooling, an up-convolution, a skip, the output.

    Attributes
    ----------
    name : str
        ``enc1``, ``pool1``, ..., ``bottleneck``, ``up4``, ``skip4``, ``dec4``, ..., ``out``. The
        number is the level: 1 at the top of the U.
    operation : str
        What the stage does.
    input, output : (int, int, int)
        Channels, height, width. The input of a skip is the map that is copied.
    crop : (int, int)
        Pixels that the skip loses on the top and bottom, and on the left and right.
    layers : tuple of Layer
        The layers, in the order in which they ran.
    """

    name: str
    operation: str
    input: Shape
    output: Shape
    layers: tuple[Layer, ...] = field(repr=False)
    crop: tuple[int, int] = (0, 0)

    @property
    def level(self) -> int | None:
        """Level in the U, 1 at the top; None for stages without one (bottleneck, out)."""
        digits = "".join(c for c in self.name if c.isdigit())
        return int(digits) if digits else None

    @property
    def parameters(self) -> int:
        """Weights and biases of the stage."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Products summed, for one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of the new maps that the stage writes, in float32, for one image.

        In-place layers (ReLU) write none; a copied skip counts where it is joined.
        """
        return sum(layer.new_bytes for layer in self.layers)


@dataclass(frozen=True)
class ShapeTrace:
    """The stages of a network for one image size, in the order in which they run.

    Iterate over it, index it by number or by name (``trace["enc1"]``), print it for a table.

    Attributes
    ----------
    input : (int, int, int)
        Channels, height and width of the image.
    stages : tuple of Stage
    """

    input: Shape
    stages: tuple[Stage, ...] = field(repr=False)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, key: int | str) -> Stage:
        if isinstance(key, int):
            return self.stages[key]
        for stage in self.stages:
            if stage.name == key:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise KeyError(f"no stage {key!r}; there are {names}")

    @property
    def output(self) -> Shape:
        """Channels, height and width of the output."""
        return self.stages[-1].output

    @property
    def parameters(self) -> int:
        """All weights and biases."""
        return sum(stage.parameters for stage in self)

    @property
    def multiply_adds(self) -> int:
        """All products summed, for one image."""
        return sum(stage.multiply_adds for stage in self)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all new maps in float32, for one image."""
        return sum(stage.activation_bytes for stage in self)

    def shares(self) -> dict[str, tuple[float, float, float]]:
        """Give each stage's share of the parameters, the multiply-adds and the memory of the maps.

        Pooling counts with the stage above it; up-convolution and copied map count with the double
        convolution that follows them. Each column sums to 1.

        Examples
        --------
        >>> from unet_tutorial import UNet
        >>> shares = trace_shapes(UNet(1, 2, base_channels=4), (64, 64)).shares()
        >>> list(shares)[:5], f"{shares['bottleneck'][0]:.2f}"
        (['enc1', 'enc2', 'enc3', 'enc4', 'bottleneck'], '0.46')
        """
        sums: dict[str, list[float]] = {}
        for stage in self:
            name = stage.name
            for start, home in (("pool", "enc"), ("up", "dec"), ("skip", "dec")):
                if name.startswith(start):
                    name = home + name.removeprefix(start)
            parts = sums.setdefault(name, [0.0, 0.0, 0.0])
            for column, value in enumerate(
                (stage.parameters, stage.multiply_adds, stage.activation_bytes)
            ):
                parts[column] += value
        whole = [max(1, self.parameters), max(1, self.multiply_adds), max(1, self.activation_bytes)]
        return {
            name: (parts[0] / whole[0], parts[1] / whole[1], parts[2] / whole[2])
            for name, parts in sums.items()
        }

    def as_rows(self) -> list[dict[str, Any]]:
        """Give one plain dictionary a stage, for data frames and front ends."""
        return [
            {
                "name": stage.name,
                "operation": stage.operation,
                "output": stage.output,
                "crop": stage.crop,
                "parameters": stage.parameters,
                "multiply_adds": stage.multiply_adds,
                "activation_bytes": stage.activation_bytes,
            }
            for stage in self
        ]

    def __str__(self) -> str:
        widths = "{:<11}{:<29}{:>13}{:>6}{:>12}{:>9}{:>8}"
        lines = [
            widths.format("stage", "operation", "output C×H×W", "crop", "parameters", "GMAC", "MB")
        ]
        for stage in [*self, self]:
            whole = isinstance(stage, ShapeTrace)
            crop = "" if whole or stage.crop == (0, 0) else _crop_text(stage.crop)
            lines.append(
                widths.format(
                    "all" if whole else stage.name,
                    "" if whole else stage.operation,
                    "×".join(map(str, stage.output)),
                    crop,
                    f"{stage.parameters:,}",
                    f"{stage.multiply_adds / 1e9:.3f}",
                    f"{stage.activation_bytes / 1e6:.1f}",
                )
            )
        return "\n".join(line.rstrip() for line in lines)


def trace_shapes(model: nn.Module, size: tuple[int, int], *, in_channels: int = 0) -> ShapeTrace:
    """Follow an image through the real modules of a network and write down every shape.

    Parameters
    ----------
    model : nn.Module
        A `UNet`, an `unet_tutorial.encoders.EncoderUNet`, or any network put together from this
        package's blocks and plain convolutions.
        It stays as it is; no weight is copied.
    size : (int, int)
        Height and width of the image in pixels.
    in_channels : int, optional
        Channels of the image, for networks without an attribute ``in_channels``.

    Returns
    -------
    ShapeTrace
        For each stage: name, operation, output (C, H, W), crop, parameters, multiply-adds and
        activation bytes.

    Raises
    ------
    ValueError
        If the size does not fit; the message names the stage and the nearest sizes that do.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> trace = trace_shapes(UNet(1, 2, padding="valid"), (572, 572))
    >>> trace.output, f"{trace.parameters:,}"
    ((2, 388, 388), '31,030,658')
    >>> trace["skip4"].crop, trace["skip1"].crop
    ((4, 4), (88, 88))
    """
    recorder = _Recorder(_without_weights(model))
    channels = in_channels or getattr(model, "in_channels", 0)
    if not channels:
        raise ValueError("this network does not tell its in_channels: pass in_channels=")
    image = torch.empty(1, channels, *size, device="meta")
    with torch.no_grad():
        recorder.model(image)
    return ShapeTrace((channels, *size), tuple(recorder.stages))


def allowed_sizes(model: UNet, minimum: int = 1, maximum: int = 1024) -> list[int]:
    """List the heights (or widths) that a network can take.

    Parameters
    ----------
    model : UNet
        Anything with the attributes ``depth`` and ``padding``.
    minimum, maximum : int
        Range to look at, both included, in pixels.

    Returns
    -------
    list of int
        Padded, the multiples of 2^depth. Unpadded at depth 4, every 16th number from 188.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> allowed_sizes(UNet(1, 2, base_channels=1), maximum=80)
    [16, 32, 48, 64, 80]
    >>> allowed_sizes(UNet(1, 2, base_channels=1, padding="valid"), maximum=240)
    [188, 204, 220, 236]
    """
    return [
        length
        for length in range(minimum, maximum + 1)
        if fits(length, depth=model.depth, padding=model.padding)
    ]


@dataclass(frozen=True)
class ReceptiveField:
    """The part of the image that one value of a map can depend on.

    Attributes
    ----------
    rows, columns : (int, int)
        First and last row and column of the image, both included. For a padded network without an
        image size they may lie outside the image.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rows[1] - self.rows[0] + 1

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.columns[1] - self.columns[0] + 1


def receptive_field(
    model: nn.Module,
    stage: str = "out",
    pixel: tuple[int, int] | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> ReceptiveField:
    """Compute which pixels of the image one value of a stage can depend on.

    Found backward through the layers that ran: a 3×3 convolution widens the field by one pixel on
    each side, a pooling doubles it, an up-convolution halves it, and a joined skip is united with
    what comes from below.

    Parameters
    ----------
    model : nn.Module
        As in `trace_shapes`.
    stage : str
        Name of the stage whose map the value belongs to.
    pixel : (int, int), optional
        Row and column of the value in that map. The field's size depends on where the value lies
        in the pooling grid; without a pixel you get the largest there is.
    size : (int, int), optional
        Height and width of the image, which cuts the field at its borders; needs a pixel.

    Returns
    -------
    ReceptiveField

    Raises
    ------
    KeyError
        If there is no stage of that name.
    ValueError
        If the size does not fit, or the pixel is not in the map; if the network has shortcuts
        within its stages, as the encoders of `unet_tutorial.encoders` have.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> model = UNet(1, 2, base_channels=1)
    >>> receptive_field(model).height, receptive_field(model, "bottleneck").height
    (204, 140)
    >>> receptive_field(model, pixel=(0, 7), size=(512, 512)).rows
    (0, 93)
    """
    if isinstance(model, Traced):
        raise ValueError(
            f"the layers of {type(model).__name__} are no single row that could be followed back "
            "from a pixel: the field is computed for networks of this package's blocks"
        )
    if pixel is None and size is not None:
        raise ValueError("a field that the image's border cuts belongs to one pixel: pass pixel=")
    trace = trace_shapes(model, size or _smallest_size(model))
    _, height, width = trace[stage].output
    if pixel is None:
        # What a value sees depends on its place in the pooling grid, which repeats every 2^depth.
        period = 2 ** sum(stage.name.startswith("pool") for stage in trace)
        spans = [_field(trace, stage, (row, row), axis=0) for row in range(period)]
        widest = max(spans, key=lambda span: span[1] - span[0])
        return ReceptiveField(widest, widest)
    row, column = pixel
    if size is not None and not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"pixel ({row}, {column}) is outside the {height}×{width} map of {stage}")
    rows = _field(trace, stage, (row, row), axis=0)
    columns = _field(trace, stage, (column, column), axis=1)
    if size is not None:
        rows = max(rows[0], 0), min(rows[1], size[0] - 1)
        columns = max(columns[0], 0), min(columns[1], size[1] - 1)
    return ReceptiveField(rows, columns)


def _field(trace: ShapeTrace, name: str, span: tuple[int, int], axis: int) -> tuple[int, int]:
    """Follow a span of rows (axis 0) or columns of a stage's output back to the image."""
    names = [stage.name for stage in trace]
    for stage in reversed(trace.stages[: names.index(name) + 1]):
        if stage.name.startswith("skip"):
            crop = stage.crop[axis]
            carried = (span[0] + crop, span[1] + crop)
            carried = _field(trace, f"enc{stage.level}", carried, axis)
            below = _field(trace, f"up{stage.level}", span, axis)
            return min(carried[0], below[0]), max(carried[1], below[1])
        for layer in reversed(stage.layers):
            span = _span_before(layer, span)
    return span


def _span_before(layer: Layer, span: tuple[int, int]) -> tuple[int, int]:
    first, last = span
    if layer.operation.endswith("up-convolution"):  # output i comes from inputs j, i - j·s < k
        return -((layer.kernel - 1 - first) // layer.stride), last // layer.stride
    if layer.operation == "bilinear upsampling":  # between the two nearest centers
        by = layer.stride
        return (2 * first + 1 - by) // (2 * by), (2 * last + 1 - by) // (2 * by) + 1
    return (
        first * layer.stride - layer.border,
        last * layer.stride - layer.border + layer.kernel - 1,
    )


def _smallest_size(model: nn.Module) -> tuple[int, int]:
    if not hasattr(model, "depth"):
        return 256, 256  # only unpadded networks have crops that depend on the size
    length = 1
    while not fits(length, depth=model.depth, padding=model.padding):  # type: ignore[arg-type]
        length += 1
    return length, length


def _without_weights(model: nn.Module) -> nn.Module:
    """Copy a network to the meta device, in evaluation mode, without copying its weights."""
    memo: dict[int, Any] = {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=False)
        if isinstance(tensor, nn.Parameter)
        else torch.empty_like(tensor, device="meta")
        for tensor in chain(model.parameters(), model.buffers())
    }
    for module in model.modules():  # somebody's hooks are not for this run
        memo |= {
            id(hooks): OrderedDict() for name, hooks in vars(module).items() if "_hooks" in name
        }
    return copy.deepcopy(model, memo).eval()


def _hasten(module: nn.Module) -> None:
    """Replace what takes a hundred times as long as a convolution if there are no contents.

    The replacement demands and hands on the same shapes. Classes that inherit may do otherwise.
    """
    stand_in: nn.Module
    if type(module) is nn.BatchNorm2d:
        channels = module.num_features
        stand_in = nn.Conv2d(channels, channels, kernel_size=1, groups=channels, device="meta")
    elif type(module) is nn.Upsample:
        stand_in = nn.Upsample(module.size, module.scale_factor)
    else:
        return
    module.forward = stand_in.forward  # type: ignore[method-assign]


class _Recorder:
    """Hooks on a network's modules that write down its stages while it runs once.

    The network is the recorder's own, without contents: see `_without_weights`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stages: list[Stage] = []
        for module in model.modules():
            _hasten(module)
        downs = [m for m in model.modules() if isinstance(m, DownSampling)]
        ups = [m for m in model.modules() if isinstance(m, UpSampling)]
        claimed: set[nn.Module] = set()
        if isinstance(model, Traced):
            for name, operation, modules in model.traced_parts():
                self._watch(modules, name, operation)
                claimed.update(*(module.modules() for module in modules))
        for level, down in enumerate(downs, start=1):
            self._watch([down.conv], f"enc{level}", "two 3×3 convolutions")
            self._watch([down.pool], f"pool{level}", "2×2 max pooling")
            claimed.update(down.modules())
        for number, up in enumerate(ups):
            level = len(ups) - number
            green = "2×2 up-convolution"
            if not isinstance(up.up, nn.ConvTranspose2d):
                green = "bilinear ×2, 1×1 convolution"
            self._watch([up.up], f"up{level}", green)
            if up.skip != "none":
                self._watch_join(up, level)
            self._watch([up.conv], f"dec{level}", "two 3×3 convolutions")
            claimed.update(up.modules())
        loose = 0
        for module in model.modules():
            if module in claimed or module is model:
                continue
            if isinstance(module, DoubleConvolution):
                name = "bottleneck" if downs and not loose else f"conv{loose + 1}"
                loose += 1
                self._watch([module], name, "two 3×3 convolutions")
                claimed.update(module.modules())
            elif isinstance(module, nn.Conv2d):
                pointwise = module.kernel_size == (1, 1)
                loose += not pointwise
                name = "out" if pointwise else f"conv{loose}"
                self._watch([module], name, _operation(module))
            elif isinstance(module, nn.Upsample):
                self._watch([module], "stretch", _operation(module))

    def _watch(self, modules: Sequence[nn.Module], name: str, operation: str) -> None:
        """Write down a stage: one module, or several that run one after another."""
        layers: list[Layer] = []
        received: list[Shape] = []
        for module in modules:
            for leaf in module.modules():
                if not list(leaf.children()):
                    leaf.register_forward_hook(
                        lambda leaf, inputs, output: layers.append(_layer(leaf, inputs[0], output))
                    )

        def begins(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            received.append(_shape(inputs[0]))

        def stage_done(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            stage = Stage(name, operation, received.pop(), _shape(output), tuple(layers))
            self.stages.append(stage)

        modules[0].register_forward_pre_hook(begins)
        modules[-1].register_forward_hook(stage_done)

    def _watch_join(self, up: UpSampling, level: int) -> None:
        carried: list[Shape] = []

        def remember(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            carried.append(_shape(inputs[1]))

        def joined(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            _, height, width = output = _shape(inputs[0])
            skip = carried.pop()
            crop = (skip[1] - height) // 2, (skip[2] - width) // 2
            verb = "copy" if crop == (0, 0) else "crop"
            how = "concatenate" if up.skip == "concat" else "add"
            copy = Layer("copy", output, new_bytes=4 * math.prod(output))
            name = f"skip{level}"
            self.stages.append(Stage(name, f"{verb} and {how}", skip, output, (copy,), crop))

        up.register_forward_pre_hook(remember)
        up.conv.register_forward_pre_hook(joined)


def _operation(module: nn.Module) -> str:
    kernel = _first(getattr(module, "kernel_size", 1))
    if isinstance(module, nn.Conv2d):
        return f"{kernel}×{kernel} convolution"
    if isinstance(module, nn.ConvTranspose2d):
        return f"{kernel}×{kernel} up-convolution"
    if isinstance(module, nn.MaxPool2d):
        return f"{kernel}×{kernel} max pooling"
    if isinstance(module, nn.Upsample):
        return f"{module.mode} upsampling"
    return {"ReLU": "ReLU", "BatchNorm2d": "batch normalization"}.get(
        type(module).__name__, type(module).__name__
    )


def _layer(module: nn.Module, before: Tensor, after: Tensor) -> Layer:
    geometry = {}
    multiply_adds = 0
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d):
        geometry = {
            "kernel": _first(module.kernel_size),
            "stride": _first(module.stride),
            "border": _first(module.padding),
        }
    elif isinstance(module, nn.Upsample):
        geometry = {"stride": after.shape[-1] // before.shape[-1]}
    if isinstance(module, nn.Conv2d):
        multiply_adds = after.numel() * module.weight[0].numel()
    elif isinstance(module, nn.ConvTranspose2d):
        multiply_adds = before.numel() * module.weight[0].numel()
    return Layer(
        _operation(module),
        _shape(after),
        parameters=sum(p.numel() for p in module.parameters()),
        multiply_adds=multiply_adds,
        new_bytes=0 if getattr(module, "inplace", False) else 4 * after.numel(),
        **geometry,
    )


def _shape(tensor: Tensor) -> Shape:
    channels, height, width = tensor.shape[1:]
    return channels, height, width


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _crop_text(crop: tuple[int, int]) -> str:
    return str(crop[0]) if crop[0] == crop[1] else f"{crop[0]}, {crop[1]}"
