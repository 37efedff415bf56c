"""The U-Net written down in the operators of ONNX, layer by layer.

PyTorch has two exporters of its own. The old one warns of its removal; the new one needs another
package, and has much to reason before it believes that an unpadded network takes more than one
size. The U-Net is a dozen lines of wiring over six kinds of layers, so it is written down here,
with height and width left open, and the tests compare what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper
from torch import nn

from unet_tutorial import __version__
from unet_tutorial.unet import UNet

# Of 2022: read by every runtime that is still in use, and all that the U-Net needs.
OPSET, IR = 17, 8


def unet_graph(model: UNet, notes: Mapping[str, str]) -> onnx.ModelProto:
    """Write a network without batch normalization as an ONNX model.

    Parameters
    ----------
    model : UNet
        From `unet_tutorial.export.fold_batch_norm`.
    notes : mapping of str to str
        For ``metadata_props``; ``"input"`` also explains the graph.

    Returns
    -------
    onnx.ModelProto
        Checked. Weights have the names of ``state_dict``, values those of the modules.

    Examples
    --------
    >>> graph = unet_graph(UNet(1, 2, base_channels=1, depth=1), {}).graph
    >>> [node.op_type for node in graph.node][:5]
    ['Conv', 'Relu', 'Conv', 'Relu', 'MaxPool']
    """
    graph = _Graph()
    down: Any = model.contracting
    up: Any = model.expansive
    skips: list[str] = []
    x = "image"
    for level, down_sampling in enumerate(down):
        name = f"contracting.{level}"
        x = graph.layer(f"{name}.conv.conv_block", down_sampling.conv.conv_block, x)
        skips.append(x)
        x = graph.layer(f"{name}.pool", down_sampling.pool, x)
    x = graph.layer("bottleneck.conv_block", model.bottleneck.conv_block, x)
    crop = 0
    for number, up_sampling in enumerate(up):
        name = f"expansive.{number}"
        x = graph.layer(f"{name}.up", up_sampling.up, x)
        if model.padding == "valid":
            # Four convolutions below each skip take 8 pixels at half its resolution: 4, 16, 40, 88.
            crop = 2 * crop + (8 if number else 4)
        if up_sampling.skip != "none":
            skip = graph.crop(f"{name}.crop", skips.pop(), crop)
            if up_sampling.skip == "concat":
                x = graph.add("Concat", [x, skip], f"{name}.skip", axis=1)
            else:
                x = graph.add("Add", [x, skip], f"{name}.skip")
        x = graph.layer(f"{name}.conv.conv_block", up_sampling.conv.conv_block, x)
    graph.layer("out", model.out, x, result="logits")

    size = ["height", "width"]
    smaller = size if model.padding == "same" else ["output_height", "output_width"]
    whole = helper.make_graph(
        graph.nodes,
        "U-Net",
        [_values("image", ["batch", model.in_channels, *size])],
        [_values("logits", ["batch", model.num_classes, *smaller])],
        graph.constants,
        doc_string=notes.get("input", ""),
    )
    result = helper.make_model(
        whole,
        producer_name="unet-tutorial",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    helper.set_model_props(result, dict(notes))
    checker.check_model(result, full_check=True)
    return result


class _Graph:
    """Nodes and weights, as far as they are written; every value has the name of its maker."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [result], name=result, **attributes))
        return result

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def crop(self, name: str, x: str, pixels: int) -> str:
        if not pixels:
            return x
        begin, end = [pixels, pixels], [-pixels, -pixels]
        limits = (("begin", begin), ("end", end), ("axes", [2, 3]))
        inputs = [self.constant(f"{name}.{key}", np.array(v, np.int64)) for key, v in limits]
        return self.add("Slice", [x, *inputs], name)

    def layer(self, name: str, layer: nn.Module, x: str, result: str = "") -> str:
        """Append a layer, or several in a row; return the name of what comes out."""
        result = result or name
        if isinstance(layer, nn.Sequential):
            for number, one in enumerate(layer):
                x = self.layer(f"{name}.{number}", one, x)
            return x
        if isinstance(layer, nn.ReLU):
            return self.add("Relu", [x], result)
        if isinstance(layer, nn.MaxPool2d):
            return self.add("MaxPool", [x], result, kernel_shape=[2, 2], strides=[2, 2])
        if isinstance(layer, nn.Upsample):  # bilinear, by 2, align_corners=False
            scales = self.constant(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            return self.add("Resize", [x, "", scales], result, **how)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            weights = [
                self.constant(f"{name}.{key}", value.detach().cpu().float().numpy())
                for key, value in layer.named_parameters()
            ]
            transposed = isinstance(layer, nn.ConvTranspose2d)
            return self.add(
                "ConvTranspose" if transposed else "Conv",
                [x, *weights],
                result,
                kernel_shape=list(layer.kernel_size),
                strides=list(layer.stride),
                pads=[int(border) for border in layer.padding] * 2,
            )
        raise TypeError(f"{name}: a {type(layer).__name__} is no layer of the U-Net")


def _values(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
