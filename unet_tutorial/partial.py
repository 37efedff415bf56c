"""The network as far as each chapter has built it: small compositions of the blocks.

Each of them answers for every pixel, so that all can be trained, scored and pictured alike. What
is missing shows in the picture.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from unet_tutorial.blocks import DoubleConvolution, DownSampling, Norm, Padding
from unet_tutorial.unet import check_size


class ThreeConvolutions(nn.Module):
    """Three 3×3 convolutions and a 1×1: detail without context (chapter 0).

    Every answer depends on the 7×7 pixels around it.

    Parameters
    ----------
    in_channels, num_classes : int
        As in `unet_tutorial.UNet`.
    base_channels : int
        Channels of the three convolutions.
    norm : {None, "batch"}
        As in `unet_tutorial.DoubleConvolution`.

    Examples
    --------
    >>> import torch
    >>> ThreeConvolutions(1, 2, base_channels=4)(torch.zeros(1, 1, 39, 39)).shape
    torch.Size([1, 2, 39, 39])
    """

    depth = 0  # no pooling: every size fits
    padding: Padding = "same"

    def __init__(
        self, in_channels: int, num_classes: int, *, base_channels: int = 64, norm: Norm = None
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.first_two = DoubleConvolution(in_channels, base_channels, norm=norm)
        self.third = nn.Conv2d(base_channels, base_channels, kernel_size=3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Conv2d(base_channels, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes, H, W)."""
        x = self.first_two(images)  # (N, base_channels, H, W): sees 5×5
        x = self.relu(self.third(x))  # (N, base_channels, H, W): sees 7×7
        return self.out(x)


class ContractingPath(nn.Module):
    """The left half of the U with a classifier at its end: context without detail.

    The classifier answers once for every square of 2^depth pixels; its answers are stretched back
    to the size of the image (chapters 1 and 2).

    Parameters
    ----------
    in_channels, num_classes, base_channels, depth : int
        As in `unet_tutorial.UNet`.
    norm : {None, "batch"}
        As in `unet_tutorial.DoubleConvolution`.
    bottleneck : bool
        Whether the double convolution at the bottom is there (chapter 2) or not (chapter 1).

    Examples
    --------
    >>> import torch
    >>> path = ContractingPath(1, 2, base_channels=4, bottleneck=True)
    >>> path(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    """

    padding: Padding = "same"

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        base_channels: int = 64,
        depth: int = 4,
        norm: Norm = None,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.depth = in_channels, num_classes, depth
        channels = [in_channels] + [base_channels * 2**level for level in range(depth)]
        self.contracting = nn.ModuleList(
            DownSampling(before, after, norm=norm) for before, after in pairwise(channels)
        )
        last = channels[-1]
        self.bottleneck = (
            DoubleConvolution(last, 2 * last, norm=norm) if bottleneck else nn.Identity()
        )
        self.out = nn.Conv2d(2 * last if bottleneck else last, num_classes, kernel_size=1)
        self.stretch = nn.Upsample(scale_factor=2**depth, mode="bilinear", align_corners=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes, H, W), smooth over 2^depth pixels.

        Raises
        ------
        ValueError
            If the size is no multiple of 2^depth.
        """
        check_size(*images.shape[-2:], depth=self.depth)
        x = images
        for down_sampling in self.contracting:
            _, x = down_sampling(x)  # the first tensor stays in the pocket until chapter 4
        x = self.bottleneck(x)  # (N, C, H / 2^depth, W / 2^depth)
        return self.stretch(self.out(x))
