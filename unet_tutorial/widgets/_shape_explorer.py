"""The U, drawn to scale and live, for any size and any option."""

from __future__ import annotations

import html
from typing import Any

import torch
import traitlets

from unet_tutorial.plots import u_svg
from unet_tutorial.shapes import ShapeTrace, Stage, trace_shapes
from unet_tutorial.unet import SizeError, UNet
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import html_table

_VIEWS = {
    "whole": ("enc", "pool", "bottleneck", "up", "skip", "dec", "out"),
    "bottleneck": ("enc", "pool", "bottleneck"),
    "contracting": ("enc", "pool"),
}


class ShapeExplorer(BookWidget):
    """What every stage of a U-Net does to the shape, drawn to scale.

    Every block is a button: shape, crop, parameters, multiply-adds, memory, receptive field, and
    the line of code that makes it. All parameters are traits: set them from Python, link them to
    other widgets, or move them in the page.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels, 1 to 4096.
    in_channels, num_classes, base_channels, depth, padding, upsampling, skip
        As in `unet_tutorial.UNet`; depth at most 6.
    norm : {"", "batch"}
        As in `unet_tutorial.UNet`; the empty text stands for None.
    view : {"whole", "bottleneck", "contracting"}
        How much of the U to draw.

    See Also
    --------
    explore : The explorer of a network that is there already. Used in chapters 1, 2 and 4.

    Examples
    --------
    >>> explorer = ShapeExplorer(height=572, width=572, padding="valid")
    >>> print(explorer.table().splitlines()[-1])
    all                                         2×388×388            31,030,658  150.428   729.6
    >>> explorer.depth = 7
    Traceback (most recent call last):
    ...
    traitlets.traitlets.TraitError: The value of the 'depth' trait of a ShapeExplorer instance ...
    """

    front_end = "shape-explorer"
    scripts = ("core.js", "shapes.js", "shape-explorer.js")

    height = traitlets.Int(512, min=1, max=4096).tag(sync=True)
    width = traitlets.Int(512, min=1, max=4096).tag(sync=True)
    in_channels = traitlets.Int(1, min=1, max=64).tag(sync=True)
    num_classes = traitlets.Int(2, min=1, max=64).tag(sync=True)
    base_channels = traitlets.Int(64, min=1, max=256).tag(sync=True)
    depth = traitlets.Int(4, min=1, max=6).tag(sync=True)
    padding = traitlets.Enum(["same", "valid"], "same").tag(sync=True)
    norm = traitlets.Enum(["", "batch"], "").tag(sync=True)
    upsampling = traitlets.Enum(["transposed", "bilinear"], "transposed").tag(sync=True)
    skip = traitlets.Enum(["concat", "add", "none"], "concat").tag(sync=True)
    view = traitlets.Enum(list(_VIEWS), "whole").tag(sync=True)
    selected = traitlets.Unicode("bottleneck").tag(sync=True)

    def model(self) -> UNet:
        """Build the network that is shown, without weights (on torch's meta device)."""
        options: dict[str, Any] = {
            "base_channels": self.base_channels,
            "depth": self.depth,
            "padding": self.padding,
            "norm": self.norm or None,
            "upsampling": self.upsampling,
            "skip": self.skip,
        }
        with torch.device("meta"):
            return UNet(self.in_channels, self.num_classes, **options)

    def trace(self) -> ShapeTrace:
        """Follow the image through the real modules.

        Raises
        ------
        ValueError
            If the size does not fit.
        """
        return trace_shapes(self.model(), (self.height, self.width))

    def table(self) -> str:
        """Return the stages as plain text, or why there are none."""
        try:
            trace = self.trace()
            return str(ShapeTrace(trace.input, tuple(self._shown(trace))))
        except SizeError as error:
            return str(error)

    def still(self) -> str:
        """Return the U as a picture and its stages as a table."""
        try:
            trace = self.trace()
        except SizeError as error:
            return f"<p>{html.escape(str(error))}</p>"
        shown = self._shown(trace)
        head = ("stage", "operation", "output C×H×W", "parameters", "GMAC", "MB")
        rows = [
            (
                stage.name,
                stage.operation,
                "×".join(map(str, stage.output)),
                f"{stage.parameters:,}",
                f"{stage.multiply_adds / 1e9:.3f}",
                f"{stage.activation_bytes / 1e6:.1f}",
            )
            for stage in shown
        ]
        words = f"The U for an image of {self.height}×{self.width} pixels, drawn to scale"
        built = None if self.view == "whole" else [stage.name for stage in shown]
        totals = (
            f"{words}: {trace.parameters:,} parameters, {trace.multiply_adds / 1e9:.3f} billion "
            f"multiply-adds, {trace.activation_bytes / 1e6:.1f} MB of maps"
        )
        return f"{u_svg(trace, built=built, label=words)}\n{html_table(totals, head, rows)}"

    def _shown(self, trace: ShapeTrace) -> list[Stage]:
        """Return the stages of the view."""
        return [stage for stage in trace if stage.name.startswith(_VIEWS[self.view])]


def explore(model: UNet, size: tuple[int, int], **options: Any) -> ShapeExplorer:
    """Open the shape explorer on a network of your own.

    Parameters
    ----------
    model : UNet
        Any U-Net of this package, trained or not; it stays as it is.
    size : (int, int)
        Height and width of the image in pixels.
    **options
        Other traits of `ShapeExplorer`, such as ``view``.

    Returns
    -------
    ShapeExplorer

    Raises
    ------
    ValueError
        If a number is outside what the explorer can show (`traitlets.TraitError` is one).

    Examples
    --------
    >>> explore(UNet(3, 5, base_channels=8, depth=2), (48, 64)).depth
    2
    """
    known = {name: value for name, value in model.options.items() if name != "dropout"}
    known["norm"] = known["norm"] or ""
    height, width = size
    return ShapeExplorer(
        height=height,
        width=width,
        in_channels=model.in_channels,
        num_classes=model.num_classes,
        **{**known, **options},
    )
