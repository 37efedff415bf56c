"""The whole network: contracting path, bottleneck, expansive path, final layer.

Chapter 4 reads this file line by line.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn

from unet_tutorial.blocks import (
    DoubleConvolution,
    DownSampling,
    Norm,
    Padding,
    Skip,
    UpSampling,
    Upsampling,
    check_choice,
    check_count,
)

PRESETS: dict[str, dict[str, Any]] = {
    "article": {},
    "notes": {"norm": "batch", "upsampling": "bilinear"},
    # The paper names drop-out but no rate: 0.5 is the choice of this book.
    "paper": {"padding": "valid", "dropout": 0.5},
}


class SizeError(ValueError):
    """An image size that the network cannot take.

    Attributes
    ----------
    size : (int, int)
        The height and width that were given.
    stage : str
        The first stage that fails, named as in `unet_tutorial.shapes.trace_shapes`.
    nearest : list of (int, int)
        The nearest sizes that work, smaller first; the smaller one is missing when there is none.
    """

    def __init__(
        self, message: str, size: tuple[int, int], stage: str, nearest: list[tuple[int, int]]
    ) -> None:
        super().__init__(message)
        self.size, self.stage, self.nearest = size, stage, nearest


def check_images(images: Tensor, in_channels: int) -> None:
    """Raise if a tensor is no batch of images for a network.

    Parameters
    ----------
    images : Tensor
        What the network was called with.
    in_channels : int
        Channels that it takes.

    Raises
    ------
    ValueError
        If the shape is not (N, in_channels, H, W), or the values are whole numbers.

    Examples
    --------
    >>> import torch
    >>> check_images(torch.zeros(39, 39), in_channels=1)
    Traceback (most recent call last):
    ValueError: expected images of shape (N, 1, H, W), got (39, 39); a single gray image of shape
    (H, W) becomes a batch with image[None, None]
    """
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(
            f"expected images of shape (N, {in_channels}, H, W), got "
            f"{tuple(images.shape)}; a single gray image of shape (H, W) becomes a batch "
            "with image[None, None]"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"expected floating-point images, got {images.dtype}; convert 8-bit images with "
            "images.float() / 255"
        )


class UNet(nn.Module):
    """The U-Net, from images to one logit per class and pixel.

    Parameters
    ----------
    in_channels : int
        Channels of the image: 1 for gray values, 3 for color.
    num_classes : int
        Classes to tell apart, background included.
    base_channels : int
        Channels of the first stage; every stage below has twice as many. The paper has 64.
    depth : int
        Number of poolings (red arrows), at least 1. The paper has 4.
    padding : {"same", "valid"}
        Padded convolutions keep the size; the paper's unpadded ones give 572 -> 388.
    norm : {None, "batch"}
        Batch normalization as in the notes; the paper and the code article have none.
    upsampling : {"transposed", "bilinear"}
        How the expansive path doubles the size.
    skip : {"concat", "add", "none"}
        What becomes of the skip connections. Only ``"concat"`` is a U-Net; the others are for
        comparison.
    dropout : float
        Rate of drop-out at the end of the contracting path, 0 <= rate < 1.

    Raises
    ------
    ValueError
        If an option is unknown or out of range.

    See Also
    --------
    UNet.preset : The networks of the code article, the notes and the paper by name.
    unet_tutorial.shapes.trace_shapes : What every stage does to the shape.

    Notes
    -----
    With no option this is the network of *Understanding the U-Net Architecture with Code*,
    section 4: the same layers and parameters in the same order.

    Examples
    --------
    >>> import torch
    >>> model = UNet(1, 2, base_channels=8)
    >>> model(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    >>> model(torch.zeros(1, 1, 39, 39))
    Traceback (most recent call last):
    ...
    unet_tutorial.unet.SizeError: a 39x39 image does not fit this network (depth 4, padding 'same'):
    pool1 would halve 39x39, and 39 is odd. Nearest sizes that fit: 32x32, 48x48.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        base_channels: int = 64,
        depth: int = 4,
        padding: Padding = "same",
        norm: Norm = None,
        upsampling: Upsampling = "transposed",
        skip: Skip = "concat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_count("base_channels", base_channels)
        check_count("depth", depth)
        check_choice("padding", padding)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a rate from 0 up to, not including, 1: {dropout!r}")
        self.options: dict[str, Any] = {
            "base_channels": base_channels,
            "depth": depth,
            "padding": padding,
            "norm": norm,
            "upsampling": upsampling,
            "skip": skip,
            "dropout": dropout,
        }
        self.in_channels, self.num_classes = in_channels, num_classes
        self.depth, self.padding = depth, padding

        down: dict[str, Any] = {"padding": padding, "norm": norm}
        up: dict[str, Any] = {**down, "upsampling": upsampling, "skip": skip}
        channels = [base_channels * 2**level for level in range(depth + 1)]  # 64, 128, ... 1024

        self.contracting = nn.ModuleList(
            DownSampling(before, after, **down)
            for before, after in zip([in_channels, *channels], channels[:-1], strict=False)
        )
        self.bottleneck = DoubleConvolution(channels[-2], channels[-1], **down)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.expansive = nn.ModuleList(
            UpSampling(2 * after, after, **up) for after in reversed(channels[:-1])
        )
        self.out = nn.Conv2d(base_channels, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, num_classes, H', W').

        Padded, H' = H and W' = W; unpadded they are smaller by the same amount (184 at depth 4).

        Raises
        ------
        ValueError
            If the tensor is not (N, in_channels, H, W) in floating point, or H or W do not fit:
            before any layer runs.
        """
        self._check(images)
        skips = []
        x = images
        for down_sampling in self.contracting:
            down, x = down_sampling(x)  # (N, C, H, W), (N, C, H/2, W/2)
            skips.append(down)
        x = self.dropout(self.bottleneck(x))  # (N, C * 2^depth, H / 2^depth, W / 2^depth)
        for up_sampling, skip in zip(self.expansive, reversed(skips), strict=True):
            x = up_sampling(x, skip)  # half the channels, twice the size
        return self.out(x)  # (N, num_classes, H', W')

    @classmethod
    def preset(
        cls,
        name: Literal["article", "notes", "paper"],
        in_channels: int,
        num_classes: int,
        **changes: Any,
    ) -> UNet:
        """Build one of the networks that the book's sources describe.

        Parameters
        ----------
        name : {"article", "notes", "paper"}
            ``"article"``: padded, no normalization, transposed convolutions. ``"notes"``: batch
            normalization and bilinear upsampling. ``"paper"``: unpadded, drop-out at the end of
            the contracting path, weights initialized after He. The paper gives no drop-out rate;
            0.5 is our choice.
        in_channels, num_classes : int
            As in `UNet`.
        **changes
            Options of `UNet` that replace the preset's.

        Returns
        -------
        UNet

        Raises
        ------
        ValueError
            If the name is unknown.

        Examples
        --------
        >>> paper = UNet.preset("paper", 1, 2)
        >>> sum(weights.numel() for weights in paper.parameters())
        31030658
        """
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(map(repr, PRESETS))}, got {name!r}")
        model = cls(in_channels, num_classes, **{**PRESETS[name], **changes})
        if name == "paper":
            initialize_he(model)
        return model

    def extra_repr(self) -> str:
        """Show the options where ``print(model)`` lists the layers."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    def _check(self, images: Tensor) -> None:
        check_images(images, self.in_channels)
        height, width = images.shape[-2:]
        check_size(height, width, depth=self.depth, padding=self.padding)
        one_value = images.shape[0] == 1 and height == width == 2**self.depth
        if one_value and self.training and self.padding == "same" and self.options["norm"]:
            raise ValueError(
                f"one {height}x{width} image leaves a single value per channel in the bottleneck, "
                "which batch normalization cannot train on: use larger images or a larger batch"
            )


def check_size(
    height: int, width: int, *, depth: int = 4, padding: Padding = "same"
) -> tuple[int, int]:
    """Check that an image size fits, by plain arithmetic; the one rule of the package.

    A size fits when every pooling sees an even height and width and no map becomes empty. The
    rule is the same whatever happens to the skip connections, although PyTorch would drop the
    last row of an odd map without a word where no skip connection waits for it.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels.
    depth : int
        Number of poolings.
    padding : {"same", "valid"}
        Padded or unpadded 3×3 convolutions.

    Returns
    -------
    (int, int)
        Height and width of the output.

    Raises
    ------
    SizeError
        A ValueError that names the size, the stage that fails and the nearest sizes that fit.

    Examples
    --------
    >>> check_size(572, 572, padding="valid")
    (388, 388)
    >>> check_size(512, 384)
    (512, 384)
    """
    if depth:  # 0: a network without pooling takes every size
        check_count("depth", depth)
    check_choice("padding", padding)
    rows, columns = _walk(height, depth, padding), _walk(width, depth, padding)
    if rows[-1][0] == columns[-1][0] == "fits":
        return rows[-1][1], columns[-1][1]

    # The axis that gets less far fails first; the other one has reached that stage as well.
    failed = min(rows, columns, key=lambda walk: (walk[-1][0] == "fits", len(walk)))
    stage = failed[-1][0]
    at_stage = f"{dict(rows)[stage]}x{dict(columns)[stage]}"
    if stage.startswith("pool"):
        reason = f"{stage} would halve {at_stage}, and {failed[-1][1]} is odd"
    elif padding == "same":
        reason = "it has no pixels"
    else:
        reason = f"two unpadded convolutions would leave nothing of the {at_stage} map in {stage}"

    nearest = _nearest(height, width, depth, padding)
    raise SizeError(
        f"a {height}x{width} image does not fit this network (depth {depth}, padding "
        f"{padding!r}): {reason}. Nearest sizes that fit: "
        f"{', '.join(f'{h}x{w}' for h, w in nearest)}.",
        (height, width),
        stage,
        nearest,
    )


def fits(length: int, *, depth: int = 4, padding: Padding = "same") -> bool:
    """Tell whether an image of this height or width fits; see `check_size`.

    Examples
    --------
    >>> [n for n in range(560, 600) if fits(n, padding="valid")]
    [572, 588]
    """
    return _walk(length, depth, padding)[-1][0] == "fits"


def _nearest(height: int, width: int, depth: int, padding: Padding) -> list[tuple[int, int]]:
    """Give the next smaller size that fits, where there is one, and the next larger."""

    def search(length: int, step: int) -> int:
        while length > 0 and not fits(length, depth=depth, padding=padding):
            length += step
        return max(length, 0)

    smaller = search(height, -1), search(width, -1)
    larger = search(max(height, 1), +1), search(max(width, 1), +1)
    return [smaller, larger] if all(smaller) else [larger]


def _walk(length: int, depth: int, padding: Padding) -> list[tuple[str, int]]:
    """Follow one side of the image through the network, in whole numbers.

    Returns the stages with the length that each receives. The last entry is ("fits", length of
    the output), or the stage that fails.
    """
    lost = 0 if padding == "same" else 4  # pixels that a double convolution takes
    walk: list[tuple[str, int]] = []
    for level in range(1, depth + 1):
        walk.append((f"enc{level}", length))
        if length - lost < 1:
            return walk
        walk.append((f"pool{level}", length - lost))
        if (length - lost) % 2:
            return walk
        length = (length - lost) // 2
    walk.append(("bottleneck", length))
    for level in range(depth, 0, -1):
        if length - lost < 1:
            return walk
        length = 2 * (length - lost)
        walk.append((f"dec{level}", length))
    if length - lost < 1:
        return walk
    return [*walk, ("fits", length - lost)]


def initialize_he(model: nn.Module) -> None:
    """Draw all convolution weights from a Gaussian of standard deviation sqrt(2 / N), in place.

    N is the number of inputs that one output value sees (paper, section 3; He et al. 2015): 576
    for a 3×3 convolution over 64 channels. A 2×2 transposed convolution with stride 2 does not
    overlap, so each of its outputs sees one value per input channel. Biases start at zero, which
    the paper leaves open.

    Parameters
    ----------
    model : nn.Module
        Any network; layers that are no convolutions stay as they are.

    Examples
    --------
    >>> layer = nn.Conv2d(64, 256, kernel_size=3)
    >>> initialize_he(layer)
    >>> abs(layer.weight.std().item() - math.sqrt(2 / 576)) < 0.001
    True
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            inputs = layer.in_channels
            if isinstance(layer, nn.Conv2d):
                inputs *= math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
