"""Inside U-Net: the network of the book, in the blocks that its chapters explain.

Examples
--------
>>> from unet_tutorial import UNet
>>> model = UNet(in_channels=1, num_classes=2)
>>> sum(weights.numel() for weights in model.parameters())
31030658
"""

from importlib.metadata import PackageNotFoundError, version

from unet_tutorial.blocks import DoubleConvolution, DownSampling, UpSampling
from unet_tutorial.unet import SizeError, UNet

try:
    __version__ = version("unet-tutorial")
except PackageNotFoundError:  # run from a folder that was copied, not installed
    __version__ = "unknown"

__all__ = ["DoubleConvolution", "DownSampling", "SizeError", "UNet", "UpSampling", "__version__"]
