"""Where did this pixel come from? Cover the image patch by patch, and see what changes."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor, nn

from unet_tutorial._pictures import gray_bytes, jpeg_url, quantize
from unet_tutorial.inference import _as_image
from unet_tutorial.shapes import _field, trace_shapes
from unet_tutorial.unet import UNet
from unet_tutorial.widgets._live import (
    LiveWidget,
    Network,
    eight_bit,
    middle,
    picture_url,
    prepare,
)
from unet_tutorial.widgets._markup import html_table, text_table
from unet_tutorial.widgets._receptive_field import _frame, _modules, square_that_holds

SIDE = 128  # pixels of the image
PATCHES = (4, 8, 16)  # pixels of a patch
STORED = 16  # pixels of a patch of the stored example
STEPS = 1000  # to which the largest influence of a stage is stored
SCALE = 2  # of the still pictures
HEAD = ["stage", "can depend on", "90 % within", "in the inner half"]
LEGEND = (
    "Frame: what the value can depend on; small square: the pixel. Right: how far the values of "
    "the stage move there when a patch of the image is covered with its mean gray, yellow most."
)

Pair = tuple[int, int]


class PixelOrigin(LiveWidget):
    """Cover an image patch by patch, and see how far the values at one place move.

    Attributes
    ----------
    stage : str
        The chosen stage.
    row, column : int
        The chosen pixel.
    patch : int
        Pixels of a patch that the page covers: 4, 8 or 16.
    stages : list of dict
        The stages to choose from, as `stage_grids` gives them.
    means : list of float
        Of the image, channel by channel: what a covered patch shows.
    found : dict
        What was measured last, in Python or in a page: for which ``row``, ``column`` and
        ``patch``, and in ``maps`` for each stage the influence of each patch, row by row. That of
        the stored example is a whole number, 1000 the largest of its stage.
    legend, head : str, list of str
        What the pictures and the columns of the table show, in words.

    See Also
    --------
    patch_influence : The measurement.
    unet_tutorial.widgets.ReceptiveFieldWidget : The same question, answered by gradients.
    """

    front_end = "pixel-origin"
    scripts = ("core.js", "engine.js", "live.js", "pixel-origin.js")

    stage = traitlets.Unicode("out").tag(sync=True)
    row = traitlets.Int(0, min=0).tag(sync=True)
    column = traitlets.Int(0, min=0).tag(sync=True)
    patch = traitlets.Enum(PATCHES, 8).tag(sync=True)
    stages = traitlets.List(traitlets.Dict()).tag(sync=True)
    means = traitlets.List(traitlets.Float()).tag(sync=True)
    found = traitlets.Dict().tag(sync=True)
    legend = traitlets.Unicode(LEGEND).tag(sync=True)
    head = traitlets.List(traitlets.Unicode(), HEAD).tag(sync=True)
    _gray = traitlets.Any()  # the image for a page without script

    @classmethod
    def of(
        cls, model: Network, image: np.ndarray, pixel: tuple[int, int] | None = None
    ) -> PixelOrigin:
        """Measure a network on an image.

        Parameters
        ----------
        model : UNet, str or Path
            As in `LiveU.of`.
        image : numpy.ndarray
            (H, W) or (C, H, W), as `unet_tutorial.inference.predict` takes it, 0 to 1; the middle
            of it is used, at most 128×128 pixels.
        pixel : (int, int), optional
            Row and column, in the part that is used, at which the reader begins; by default its
            middle.

        Returns
        -------
        PixelOrigin

        Raises
        ------
        ValueError
            If the image does not fit, or the pixel is outside of it.

        Examples
        --------
        >>> _ = torch.manual_seed(0)
        >>> widget = PixelOrigin.of(UNet(1, 2, base_channels=2, depth=1), np.zeros((32, 32)))
        >>> [stage["name"] for stage in widget.stages], widget.row
        (['enc1', 'bottleneck', 'dec1', 'out'], 16)
        """
        network = prepare(model)[0]
        unet = network.model
        example = np.ascontiguousarray(eight_bit(middle(_as_image(image, unet), unet, SIDE)))
        height, width = example.shape[1:]
        row, column = pixel or (height // 2, width // 2)
        maps = patch_influence(unet, example, (row, column), STORED)
        whole = {
            name: np.rint(influence * (STEPS / (float(influence.max()) or 1.0))).astype(int)
            for name, influence in maps.items()
        }
        widget = cls(
            networks=[network.entry()],
            network=network.name,
            picture=picture_url(example),
            size=[height, width],
            colors=len(example),
            row=row,
            column=column,
            stages=stage_grids(unet, (height, width)),
            means=means_of(example).tolist(),
            found={
                "row": row,
                "column": column,
                "patch": STORED,
                "maps": {name: influence.ravel().tolist() for name, influence in whole.items()},
            },
            _gray=gray_bytes(example, SIDE),
        )
        widget.keep([network])
        return widget

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return, for what was measured last, each stage with the sizes of its fields.

        The size of the field in pixels, the square around the value that holds 90 % of the
        influence, and the share of the influence in the square half as wide as the field. Every
        pixel of the field counts as much as its patch; where the field is narrower than two
        patches nothing can be told: "–".

        Examples
        --------
        >>> model = UNet(1, 2, base_channels=2, depth=1)
        >>> PixelOrigin.of(model, np.zeros((32, 32))).rows()[0]
        ('enc1', '5 × 5', '–', '–')
        """
        rows = []
        patch, (height, width) = self.found["patch"], self.size
        for stage in self.stages:
            _, center, (down, across) = unit_of(stage, self._pixel(), (height, width))
            sides = down[1] - down[0] + 1, across[1] - across[0] + 1
            words = "{} × {}".format(*sides)
            pixels = np.zeros((height, width))
            part = slice(down[0], down[1] + 1), slice(across[0], across[1] + 1)
            pixels[part] = self._spread(stage["name"])[part]
            if min(sides) < 2 * patch or not pixels.any():
                rows.append((stage["name"], words, "–", "–"))
                continue
            square = square_that_holds(pixels, center)
            y, x = np.indices(pixels.shape)
            needed = 2 * np.maximum(abs(y - center[0]), abs(x - center[1])) + 1
            inner = pixels[needed <= max(sides) / 2].sum() / pixels.sum()
            rows.append((stage["name"], words, f"{square} × {square}", f"{inner:.0%}"))
        return rows

    def table(self) -> str:
        """Return the fields of all stages as text."""
        title = (
            f"value at {self._place()} of a {self.size[0]}×{self.size[1]} image, patches of "
            f"{self.found['patch']} pixels"
        )
        return f"{title}\n{text_table([HEAD, *self.rows()], align='<>')}"

    def still(self) -> str:
        """Return image, influence and table of what was measured last, as HTML."""
        rows = {stage: rest for stage, *rest in self.rows()}
        can, within, inner = rows[self.stage]
        words = (
            f"Left an image with a frame around the {can} pixels on which {self.stage} at "
            f"{self._place()} can depend; right the influence of each patch: 90 % within {within}, "
            f"{inner} in the inner half."
        )
        return (
            f'<figure style="margin:0"><img alt="{html.escape(words)}" src="{self._composed()}" '
            'style="max-width:100%">\n'
            f"<figcaption>{self.stage} at {self._place()}. {self.legend}</figcaption></figure>\n"
            + html_table(
                f"Fields at {self._place()}, in pixels, patches of {self.found['patch']}",
                HEAD,
                self.rows(),
            )
        )

    def _pixel(self) -> Pair:
        return self.found["row"], self.found["column"]

    def _spread(self, stage: str) -> np.ndarray:
        """Give every pixel the influence of its patch."""
        patch, (height, width) = self.found["patch"], self.size
        influence = np.asarray(self.found["maps"][stage], float)
        influence = influence.reshape(-1, math.ceil(width / patch))
        return influence.repeat(patch, 0).repeat(patch, 1)[:height, :width]

    def _place(self) -> str:
        return "row {}, column {}".format(*self._pixel())

    def _composed(self) -> str:
        """Draw the image and the influence beside each other, with the field in both."""
        height, width = self.size
        influence = self._spread(self.stage)
        colors = matplotlib.colormaps["viridis"](influence / (influence.max() or 1.0))[..., :3]
        row, column = self._pixel()
        stage = next(stage for stage in self.stages if stage["name"] == self.stage)
        _, _, field = unit_of(stage, (row, column), (height, width))
        pictures = []
        for shown in (np.repeat(self._gray[..., None], 3, axis=-1), quantize(colors, 256)):
            pixels = shown.repeat(SCALE, 0).repeat(SCALE, 1)
            picture = Image.fromarray(pixels)
            _frame(picture, field, SCALE)
            _frame(picture, ((row - 1, row + 1), (column - 1, column + 1)), SCALE)
            pictures.append(np.asarray(picture))
        gap = np.full((height * SCALE, 4 * SCALE, 3), 255, np.uint8)
        return jpeg_url(np.concatenate([pictures[0], gap, pictures[1]], axis=1), quality=75)


def stage_grids(model: UNet, size: Pair) -> list[dict[str, Any]]:
    """Tell where the values of each stage lie over the image, and how far each of them sees.

    Parameters
    ----------
    model : UNet
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    list of dict
        From the image on: ``name``; ``step``, pixels of the image from one value to the next;
        ``offsets``, row and column of the first value's middle; ``places``, height and width of
        the map; ``spans``, first and last row of the field, counted from step · place, which
        repeat after as many places as there are.

    Examples
    --------
    >>> stage_grids(UNet(1, 2, base_channels=1, depth=1), (16, 16))[1]
    {'name': 'bottleneck', 'step': 2, 'offsets': [0.5, 0.5], 'places': [8, 8], 'spans': [[-6, 7]]}
    """
    trace = trace_shapes(model, size)
    grids = []
    for name in _modules(model):
        level = model.depth + 1 if name == "bottleneck" else trace[name].level or 1
        step = 2 ** (level - 1)
        _, *places = trace[name].output
        spans = []
        for place in range(2**model.depth // step):
            first, last = _field(trace, name, (place, place), axis=0)
            spans.append([first - step * place, last - step * place])
        # Every map lies in the middle of the image, whether padded or not.
        offsets = [(size[k] - 1 - step * (places[k] - 1)) / 2 for k in (0, 1)]
        grids.append(
            {"name": name, "step": step, "offsets": offsets, "places": places, "spans": spans}
        )
    return grids


def unit_of(
    stage: Mapping[str, Any], pixel: Pair, size: Pair
) -> tuple[Pair, tuple[float, float], tuple[Pair, Pair]]:
    """Find the place of a stage's map that lies over a pixel, its middle, and its field.

    Parameters
    ----------
    stage : mapping
        One of `stage_grids`.
    pixel, size : (int, int)
        In the image, and of it.

    Returns
    -------
    at : (int, int)
        Row and column in the map.
    center : (float, float)
        Their middle in the image.
    field : ((int, int), (int, int))
        First and last row, first and last column of the image on which the values there can
        depend.

    Examples
    --------
    >>> bottleneck = stage_grids(UNet(1, 2, base_channels=1, depth=1), (16, 16))[1]
    >>> unit_of(bottleneck, (8, 1), (16, 16))
    ((4, 0), (8.5, 0.5), ((2, 15), (0, 7)))
    """
    step, found = stage["step"], []
    for k in (0, 1):
        wish = math.floor((pixel[k] - stage["offsets"][k]) / step + 0.5)
        at = min(max(wish, 0), stage["places"][k] - 1)
        span = stage["spans"][at % len(stage["spans"])]
        first, last = (min(max(step * at + far, 0), size[k] - 1) for far in span)
        found.append((at, stage["offsets"][k] + step * at, (first, last)))
    (y, top, rows), (x, left, columns) = found
    return (y, x), (top, left), (rows, columns)


def means_of(image: np.ndarray) -> np.ndarray:
    """Return the mean of each channel of an image (C, H, W), as a covered patch shows it.

    Examples
    --------
    >>> means_of(np.array([[[0.0, 1.0]]], np.float32))
    array([0.5], dtype=float32)
    """
    return image.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


def patch_influence(
    model: UNet, image: np.ndarray, pixel: tuple[int, int], patch: int = 8
) -> dict[str, np.ndarray]:
    """Measure how far covering each patch of an image moves the values at one place.

    Parameters
    ----------
    model : UNet
        In evaluation mode.
    image : numpy.ndarray
        (C, H, W) float32.
    pixel : (int, int)
        Row and column in the image; in each stage the place that lies nearest is looked at.
    patch : int
        Pixels along the side of a patch. It is covered with the mean of the image, channel by
        channel; the last ones may reach over the border.

    Returns
    -------
    dict of str to numpy.ndarray
        By stage, from the image on: (⌈H / patch⌉, ⌈W / patch⌉) float32, the Euclidean distance
        over all channels of the values with the patch covered from those without.

    Raises
    ------
    ValueError
        If the pixel is not in the image.

    Notes
    -----
    After M. D. Zeiler and R. Fergus, *Visualizing and Understanding Convolutional Networks*
    (2014), section 4.2, who watched the class at the end.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = UNet(1, 2, base_channels=2, depth=1).eval()
    >>> image = np.random.default_rng(0).random((1, 16, 16), np.float32)
    >>> influence = patch_influence(model, image, (1, 1), 4)["bottleneck"]
    >>> influence.shape, float(influence[2:].max()), float(influence[:, 2:].max())
    ((4, 4), 0.0, 0.0)
    """
    height, width = image.shape[1:]
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ValueError(f"pixel {tuple(pixel)} is outside the {height}×{width} image that is used")
    modules = _modules(model)
    grids = stage_grids(model, (height, width))
    units = {stage["name"]: unit_of(stage, pixel, (height, width))[0] for stage in grids}
    caught: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            y, x = units[name]
            caught[name] = output[0, :, y, x].clone()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    given = torch.from_numpy(image)[None]
    gray = torch.from_numpy(means_of(image))[:, None, None]
    tops, lefts = range(0, height, patch), range(0, width, patch)
    found = {name: np.zeros((len(tops), len(lefts)), np.float32) for name in modules}
    try:
        with torch.inference_mode():
            model(given)
            own = dict(caught)
            for row, top in enumerate(tops):
                for column, left in enumerate(lefts):
                    covered = given.clone()
                    covered[0, :, top : top + patch, left : left + patch] = gray
                    model(covered)
                    for name, values in caught.items():
                        found[name][row, column] = torch.linalg.vector_norm(values - own[name])
    finally:
        for hook in hooks:
            hook.remove()
    return found
