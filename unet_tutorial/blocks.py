"""The three blocks of the U-Net: double convolution, down-sampling, up-sampling.

The classes carry the names of the book's source document, *Understanding the U-Net Architecture
with Code*, and with their default options they are its code, layer by layer. The options are the
variants that the book teaches: the paper's unpadded convolutions, the notes' batch normalization
and bilinear upsampling, and the three ways to treat a skip connection.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Padding = Literal["same", "valid"]
Norm = Literal["batch"] | None
Upsampling = Literal["transposed", "bilinear"]
Skip = Literal["concat", "add", "none"]

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "padding": ("same", "valid"),
    "norm": (None, "batch"),
    "upsampling": ("transposed", "bilinear"),
    "skip": ("concat", "add", "none"),
}


class DoubleConvolution(nn.Module):
    """Two 3×3 convolutions, each followed by ReLU: the blue arrows.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the block; both convolutions give ``out_channels``.
    padding : {"same", "valid"}
        ``"same"`` pads with one ring of zeros and keeps height and width (code article, section
        1.1). ``"valid"`` does not pad, so each convolution takes one pixel off every side (paper,
        section 2: 572 -> 570 -> 568).
    norm : {None, "batch"}
        ``"batch"`` puts batch normalization between convolution and ReLU and drops the
        convolution's bias, which the normalization would subtract again (notes, first part).

    Raises
    ------
    ValueError
        If a channel count is not a positive integer or an option is unknown.

    See Also
    --------
    DownSampling, UpSampling : The blocks that contain this one. Explained in chapter 1.

    Examples
    --------
    >>> import torch
    >>> block = DoubleConvolution(1, 64)
    >>> block(torch.zeros(2, 1, 48, 48)).shape
    torch.Size([2, 64, 48, 48])
    >>> DoubleConvolution(1, 64, padding="valid")(torch.zeros(1, 1, 572, 572)).shape
    torch.Size([1, 64, 568, 568])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        padding: Padding = "same",
        norm: Norm = None,
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_count("out_channels", out_channels)
        check_choice("padding", padding)
        check_choice("norm", norm)
        self.conv_block = nn.Sequential(
            *_convolution(in_channels, out_channels, padding, norm),
            *_convolution(out_channels, out_channels, padding, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W), or H - 4, W - 4 unpadded."""
        return self.conv_block(x)


class DownSampling(nn.Module):
    """A double convolution, then 2×2 max pooling: one step of the contracting path.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the double convolution; pooling keeps them.
    padding, norm
        As in `DoubleConvolution`.

    Notes
    -----
    The block hands back two tensors. ``down``, before the pooling, is what the skip connection
    carries to the expansive path; ``pool`` goes on to the next block (code article, section 1.2).

    Examples
    --------
    >>> import torch
    >>> down, pool = DownSampling(1, 64)(torch.zeros(1, 1, 48, 48))
    >>> down.shape, pool.shape
    (torch.Size([1, 64, 48, 48]), torch.Size([1, 64, 24, 24]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        padding: Padding = "same",
        norm: Norm = None,
    ) -> None:
        super().__init__()
        self.conv = DoubleConvolution(in_channels, out_channels, padding=padding, norm=norm)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W) and its half-sized pooling."""
        down = self.conv(x)  # (N, out_channels, H, W): kept for the skip connection
        pool = self.pool(down)  # (N, out_channels, H/2, W/2): goes on down
        return down, pool


class UpSampling(nn.Module):
    """Upsample, join the skip connection, double convolution: one step of the expansive path.

    Parameters
    ----------
    in_channels : int
        Channels that come from below; even, because upsampling halves them.
    out_channels : int
        Channels after the double convolution.
    padding, norm
        As in `DoubleConvolution`.
    upsampling : {"transposed", "bilinear"}
        ``"transposed"``: a 2×2 transposed convolution with stride 2, the green arrow (code
        article, section 3). ``"bilinear"``: bilinear interpolation by 2 with
        ``align_corners=False`` (notes, second part), then a 1×1 convolution that halves the
        channels as the transposed convolution does.
    skip : {"concat", "add", "none"}
        What happens to the skip connection: concatenated after the upsampled channels (the
        U-Net), added to them, or left out. The last two are there to compare with.

    Raises
    ------
    ValueError
        If ``in_channels`` is odd, a channel count is not positive or an option is unknown.

    Notes
    -----
    The code article concatenates (upsampled, skip), the notes and the paper's figure (skip,
    upsampled). The two are the same network up to a permutation of the next convolution's input
    channels; chapter 4 shows it.

    Examples
    --------
    >>> import torch
    >>> below, skip = torch.zeros(1, 128, 24, 24), torch.zeros(1, 64, 48, 48)
    >>> UpSampling(128, 64)(below, skip).shape
    torch.Size([1, 64, 48, 48])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        padding: Padding = "same",
        norm: Norm = None,
        upsampling: Upsampling = "transposed",
        skip: Skip = "concat",
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_choice("upsampling", upsampling)
        check_choice("skip", skip)
        if in_channels % 2:
            raise ValueError(f"UpSampling halves its channels: in_channels={in_channels} is odd")
        half = in_channels // 2
        self.skip = skip
        self.up: nn.Module
        if upsampling == "transposed":
            self.up = nn.ConvTranspose2d(in_channels, half, kernel_size=2, stride=2)
        else:
            self.up = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(in_channels, half, kernel_size=1),
            )
        joined = in_channels if skip == "concat" else half
        self.conv = DoubleConvolution(joined, out_channels, padding=padding, norm=norm)

    def forward(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Join what comes from below with the skip.

        Parameters
        ----------
        x1 : Tensor
            From below, (N, in_channels, H, W).
        x2 : Tensor, optional
            The skip connection, (N, in_channels / 2, 2H + 2c, 2W + 2c): padded networks have
            crop c = 0. May be left out when ``skip="none"``.

        Returns
        -------
        Tensor
            (N, out_channels, 2H, 2W), or 2H - 4, 2W - 4 unpadded.

        Raises
        ------
        ValueError
            If the skip connection is missing or smaller than the upsampled map.
        """
        x = self.up(x1)  # (N, in_channels/2, 2H, 2W)
        if self.skip != "none":
            if x2 is None:
                raise ValueError(f"UpSampling(skip={self.skip!r}) needs the skip connection x2")
            x2 = center_crop(x2, x.shape[-2:])  # (N, in_channels/2, 2H, 2W)
            x = torch.cat((x, x2), dim=1) if self.skip == "concat" else x + x2
        return self.conv(x)


def center_crop(skip: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Cut the border of a map so that its middle remains: the crop of the gray arrows.

    Parameters
    ----------
    skip : Tensor
        (N, C, H, W).
    size : (int, int)
        Height and width to keep; not larger than the map, and of the same parity.

    Returns
    -------
    Tensor
        (N, C, height, width), a view: nothing is copied.

    Raises
    ------
    ValueError
        If the map is smaller than ``size`` or the border cannot be shared equally.

    Examples
    --------
    The paper's highest skip: 568 pixels are cropped by 88 on each side to meet 392.

    >>> import torch
    >>> center_crop(torch.zeros(1, 64, 568, 568), (392, 392)).shape
    torch.Size([1, 64, 392, 392])
    """
    height, width = int(size[0]), int(size[1])
    top, odd_rows = divmod(skip.shape[-2] - height, 2)
    left, odd_columns = divmod(skip.shape[-1] - width, 2)
    if top < 0 or left < 0 or odd_rows or odd_columns:
        raise ValueError(
            f"the skip connection of {skip.shape[-2]}x{skip.shape[-1]} cannot meet the upsampled "
            f"map of {height}x{width}: it must be as large, or larger by the same whole number of "
            "pixels on both sides. Choose an input size that the network allows "
            "(unet_tutorial.shapes.allowed_sizes)."
        )
    return skip[..., top : top + height, left : left + width]


def check_count(name: str, value: int) -> None:
    """Raise a ValueError unless the value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_choice(name: str, value: str | None) -> None:
    """Raise a ValueError unless the value is one that the option of this name knows."""
    if value not in _CHOICES[name]:
        known = " or ".join(repr(choice) for choice in _CHOICES[name])
        raise ValueError(f"{name} must be {known}, got {value!r}")


def _convolution(
    in_channels: int, out_channels: int, padding: Padding, norm: Norm
) -> list[nn.Module]:
    border = 1 if padding == "same" else 0
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size=3, padding=border, bias=norm is None
    )
    if norm == "batch":
        return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return [convolution, nn.ReLU(inplace=True)]
