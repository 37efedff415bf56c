"""Where did this value come from? The field that can have a say, and the one that has."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw
from torch import Tensor, nn

from unet_tutorial._pictures import (
    gray_bytes,
    jpeg_url,
    png_url,
    quantize,
    read_url,
    shrink,
)
from unet_tutorial.features import _stages
from unet_tutorial.inference import _as_image
from unet_tutorial.shapes import ReceptiveField, ShapeTrace, receptive_field, trace_shapes
from unet_tutorial.unet import UNet
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import html_table, text_table

Span = tuple[float, float]  # first and last row or column, both included

SHARE = 0.9  # of the influence that the square holds
DECADES = 3  # of influence that the picture shows
LEVELS = 16  # brightness steps of a stored map
SIDE = 48  # pixels that a stored map has at most on its longer side
IMAGE_SIDE = 256

LEGEND = (
    "Solid frame: what the value can depend on. Dashed frame, around the value: 90 % of the "
    "measured influence. Orange: the influence, on a logarithmic scale down to a thousandth of "
    "the largest."
)
HEAD = ("stage", "can depend on", "90 % within")

#: What the front end must know of a network without an attribute ``options``.
PLAIN = {"padding": "same", "norm": None, "upsampling": "transposed", "skip": "concat"}


class ReceptiveFieldWidget(BookWidget):
    """The theoretical receptive field of one value beside the measured one, over the image.

    The reader chooses a place in the image and a stage. The front end computes the theoretical
    field itself. The measured one is stored: the absolute gradient of the value with respect to
    every pixel of the image, for each stage and each place of a coarse grid.

    Attributes
    ----------
    stage : str
        The chosen stage.
    row, column : int
        The chosen place in the grid, counted from 0 at the top left.
    stages : list of str
        The stages to choose from.
    grid : list of list of int
        Rows, and columns, of the image at which the grid has its places.
    size : list of int
        Height and width of the image.
    options : dict
        The network's options, as `unet_tutorial.UNet` takes them.
    image : str
        The image, small, as a ``data:`` address.
    measured : dict
        For each stage: ``"at"``, the rows and the columns of its map that lie nearest to the
        grid's; ``"centers"``, their middles in the image; and as a list of lists, rows of
        places, ``"maps"``, the influence over the theoretical field as the address of a gray
        picture on a logarithmic scale, and ``"sides"``, the square that holds 90 % of it.
    legend : str
        What the picture shows, in words.

    See Also
    --------
    measure_influence : The measurement.
    unet_tutorial.shapes.receptive_field : The theory.
    """

    front_end = "receptive-field"
    scripts = ("core.js", "shapes.js", "receptive-field.js")

    stage = traitlets.Unicode("out").tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    column = traitlets.Int(0).tag(sync=True)
    stages = traitlets.List(traitlets.Unicode()).tag(sync=True)
    grid = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    image = traitlets.Unicode("").tag(sync=True)
    measured = traitlets.Dict().tag(sync=True)
    legend = traitlets.Unicode(LEGEND).tag(sync=True)

    @classmethod
    def of(
        cls,
        model: Any,
        image: np.ndarray,
        pixels: int = 4,
        stages: list[str] | None = None,
    ) -> ReceptiveFieldWidget:
        """Measure a network on an image.

        Parameters
        ----------
        model : UNet or unet_tutorial.partial.ContractingPath
            A trained network; it stays in the mode that it is in, and is measured in evaluation
            mode.
        image : numpy.ndarray
            (H, W) or (C, H, W), as `unet_tutorial.inference.predict` takes it; the size must fit.
            256×256 are enough: the time grows with the pixels.
        pixels : int
            Places of the grid along each side, from 1 to 8.
        stages : list of str, optional
            Stages to choose from. By default the contracting path, the bottleneck and the output
            (which sees what ``"dec1"`` sees).

        Returns
        -------
        ReceptiveFieldWidget

        Raises
        ------
        ValueError
            If the network has no stages, the image does not fit, a stage is unknown or there are
            too many places.

        Examples
        --------
        >>> model = UNet(1, 2, base_channels=2, depth=2)
        >>> widget = ReceptiveFieldWidget.of(model, np.zeros((1, 32, 32)), pixels=2)
        >>> widget.stages, widget.grid
        (['enc1', 'enc2', 'bottleneck', 'out'], [[8, 24], [8, 24]])
        """
        if not isinstance(pixels, int) or not 1 <= pixels <= 8:
            raise ValueError(
                f"pixels must be a whole number from 1 to 8, got {pixels!r}: that many places "
                "along each side are stored"
            )
        known = _modules(model)
        if stages is None:
            stages = [stage for stage in known if not stage.startswith("dec")]
        for stage in stages:
            if stage not in known:
                raise ValueError(f"no stage {stage!r}: this network offers {', '.join(known)}")
        values = _as_image(image, model)
        size = values.shape[1], values.shape[2]
        trace = trace_shapes(model, size)
        grid = [_grid(trace, size[axis], axis, pixels) for axis in (0, 1)]
        measured = {}
        for stage in stages:
            nearest = [
                [_nearest(trace, stage, size[axis], axis, wish) for wish in grid[axis]]
                for axis in (0, 1)
            ]
            at = [[place for place, _ in along] for along in nearest]
            centers = [[center for _, center in along] for along in nearest]
            # Rows and columns are independent: the fields on the diagonal tell all others.
            fields = [
                receptive_field(model, stage, pixel, size=size) for pixel in zip(*at, strict=True)
            ]
            places = [(row, column) for row in range(pixels) for column in range(pixels)]
            gradients = measure_influence(
                model,
                values,
                stage,
                [(at[0][row], at[1][column]) for row, column in places],
                [
                    ReceptiveField(fields[row].rows, fields[column].columns)
                    for row, column in places
                ],
            )
            maps: list[list[str]] = [[] for _ in range(pixels)]
            sides: list[list[int]] = [[] for _ in range(pixels)]
            for (row, column), influence in zip(places, gradients, strict=True):
                top, bottom = fields[row].rows
                left, right = fields[column].columns
                center = centers[0][row], centers[1][column]
                maps[row].append(_picture(influence[top : bottom + 1, left : right + 1]))
                sides[row].append(square_that_holds(influence, center))
            measured[stage] = {"at": at, "centers": centers, "maps": maps, "sides": sides}
        names = ("in_channels", "num_classes", "depth")
        options = PLAIN | {name: getattr(model, name) for name in names}
        options["base_channels"] = trace["enc1"].output[0]
        options |= getattr(model, "options", {})
        return cls(
            stage=stages[-1],
            row=pixels // 2,
            column=pixels // 2,
            stages=stages,
            grid=grid,
            size=list(size),
            options=options,
            image=jpeg_url(gray_bytes(values, IMAGE_SIDE), quality=75),
            measured=measured,
        )

    def numbers(self) -> list[tuple[str, str, str]]:
        """Return, for the chosen place, each stage with its two fields in pixels.

        Examples
        --------
        >>> model = UNet(1, 2, base_channels=2, depth=1)
        >>> ReceptiveFieldWidget.of(model, np.zeros((16, 16)), pixels=1).numbers()[0][:2]
        ('enc1', '5 × 5')
        """
        rows = []
        for stage in self.stages:
            (top, bottom), (left, right) = self._field(stage)
            side = self.measured[stage]["sides"][self.row][self.column]
            theory = f"{bottom - top + 1} × {right - left + 1}"
            rows.append((stage, theory, f"{side} × {side}" if side else "none"))
        return rows

    def table(self) -> str:
        """Return the fields of all stages at the chosen place as text."""
        title = f"value at {self._place()} of a {self.size[0]}×{self.size[1]} image"
        return f"{title}\n{text_table([HEAD, *self.numbers()], align='<>')}"

    def still(self) -> str:
        """Return the picture of the chosen place and the table, as HTML."""
        rows = {stage: rest for stage, *rest in self.numbers()}
        theory, found = rows[self.stage]
        place = self._place()
        words = (
            f"An image with two frames around {place}: the {theory} pixels that a value of "
            f"{self.stage} can depend on, and the {found} that hold 90 % of the measured influence."
        )
        return (
            f'<figure><img alt="{html.escape(words)}" src="{self._composed()}" '
            'style="max-width:100%">\n'
            f"<figcaption>{self.stage} at {place}. {self.legend}</figcaption></figure>\n"
            + html_table(f"Fields at {place}, in pixels", HEAD, self.numbers())
        )

    def _place(self) -> str:
        return f"row {self.grid[0][self.row]}, column {self.grid[1][self.column]}"

    def _field(self, stage: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return first and last row, and first and last column, of the theoretical field."""
        rows, columns = self.measured[stage]["at"]
        pixel = rows[self.row], columns[self.column]
        field = receptive_field(self._network(), stage, pixel, size=(self.size[0], self.size[1]))
        return field.rows, field.columns

    def _square(self, stage: str) -> tuple[Span, Span]:
        """Return the same of the square that holds 90 % of the influence, cut at the border."""
        far = (self.measured[stage]["sides"][self.row][self.column] - 1) / 2
        rows, columns = self.measured[stage]["centers"]
        y, x = rows[self.row], columns[self.column]
        return (
            (max(y - far, 0), min(y + far, self.size[0] - 1)),
            (max(x - far, 0), min(x + far, self.size[1] - 1)),
        )

    def _network(self) -> UNet:
        with torch.device("meta"):  # shapes need no weights
            return UNet(**self.options)

    def _composed(self) -> str:
        """Draw the image, the influence and both frames into one picture."""
        height, width = self.size
        gray = np.asarray(read_url(self.image), np.float32)
        rows, columns = field = self._field(self.stage)
        influence = Image.fromarray(
            read_url(self.measured[self.stage]["maps"][self.row][self.column])
        )
        size = columns[1] - columns[0] + 1, rows[1] - rows[0] + 1
        opacity = Image.new("L", (width, height))
        opacity.paste(influence.resize(size, Image.Resampling.NEAREST), (columns[0], rows[0]))
        small = opacity.resize((gray.shape[1], gray.shape[0]), Image.Resampling.BOX)
        alpha = np.asarray(small, np.float32)[..., None] * np.float32(0.85 / 255)
        blended = (1 - alpha) * gray[..., None] + alpha * np.array([255, 140, 0], np.float32)
        picture = Image.fromarray(blended.round().astype(np.uint8))
        scale = gray.shape[1] / width
        _frame(picture, field, scale)
        if self.measured[self.stage]["sides"][self.row][self.column]:
            _frame(picture, self._square(self.stage), scale, dashed=True)
        return jpeg_url(np.asarray(picture), quality=75)


def measure_influence(
    model: Any,
    image: np.ndarray,
    stage: str,
    pixels: list[tuple[int, int]],
    fields: list[ReceptiveField] | None = None,
) -> list[np.ndarray]:
    """Measure how strongly each pixel of an image moves the values at some places of a stage.

    Parameters
    ----------
    model : UNet or unet_tutorial.partial.ContractingPath
        It stays in the mode that it is in, and is measured in evaluation mode.
    image : numpy.ndarray
        (C, H, W) float32.
    stage : str
        ``"enc1"`` … ``"bottleneck"`` … ``"dec1"``, ``"out"``.
    pixels : list of (int, int)
        Rows and columns in the map of the stage.
    fields : list of unet_tutorial.shapes.ReceptiveField, optional
        Their theoretical fields: values whose fields do not overlap share one backward pass.

    Returns
    -------
    list of numpy.ndarray
        For each place (H, W) float64: the absolute gradient, summed over the image's channels, of
        the sum of the stage's channels at that place. At the output, where only differences of
        the logits count, it is the winning logit minus the mean of the others.

    Examples
    --------
    >>> model = UNet(1, 2, base_channels=2, depth=1)
    >>> image = np.random.default_rng(0).random((1, 16, 16), np.float32)
    >>> influence = measure_influence(model, image, "out", [(8, 8)])[0]
    >>> influence.shape, bool((influence >= 0).all())
    ((16, 16), True)
    """
    caught: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        caught.append(output)

    hook = _modules(model)[stage].register_forward_hook(keep)
    was_training = model.training
    device = next(model.parameters()).device
    given = torch.from_numpy(image)[None].to(device).requires_grad_()
    model.eval()
    try:
        with torch.enable_grad():
            model(given)
    finally:
        hook.remove()
        model.train(was_training)
    values = caught[0][0]
    targets = values.sum(dim=0)
    if stage == "out" and len(values) > 1:
        best = values.amax(dim=0)
        targets = best - (targets - best) / (len(values) - 1)
    found = [np.zeros(image.shape[1:]) for _ in pixels]
    for group in _apart(len(pixels), fields):
        target = torch.stack([targets[pixels[number]] for number in group]).sum()
        gradient = torch.autograd.grad(target, given, retain_graph=True)[0]
        influence = gradient[0].abs().sum(dim=0).double().cpu().numpy()
        for number in group:
            part = _window(fields[number]) if fields else ...
            found[number][part] = influence[part]
    return found


def _apart(number: int, fields: list[ReceptiveField] | None) -> list[list[int]]:
    """Put values into groups whose fields do not overlap; without fields, each into its own."""
    groups: list[list[int]] = []
    for new in range(number):
        for group in groups:
            if fields and not any(_overlap(fields[new], fields[old]) for old in group):
                group.append(new)
                break
        else:
            groups.append([new])
    return groups


def _overlap(one: ReceptiveField, other: ReceptiveField) -> bool:
    return all(
        mine[0] <= its[1] and its[0] <= mine[1]
        for mine, its in ((one.rows, other.rows), (one.columns, other.columns))
    )


def _window(field: ReceptiveField) -> tuple[slice, slice]:
    return slice(field.rows[0], field.rows[1] + 1), slice(field.columns[0], field.columns[1] + 1)


def square_that_holds(
    influence: np.ndarray, center: tuple[float, float], share: float = SHARE
) -> int:
    """Find the smallest square around a point that holds a share of the influence.

    Parameters
    ----------
    influence : numpy.ndarray
        (H, W), nowhere negative.
    center : (float, float)
        Row and column; halves lie between pixels.
    share : float
        From 0 to 1.

    Returns
    -------
    int
        Side in pixels, also where the image's border cuts the square; 0 if there is no influence.

    Examples
    --------
    >>> square_that_holds(np.ones((9, 9)), (4, 4), share=0.3)
    5
    >>> square_that_holds(np.ones((4, 4)), (1.5, 1.5), share=0.25)
    2
    """
    total = influence.sum()
    if not total > 0:
        return 0
    rows = np.abs(np.arange(influence.shape[0]) - center[0])
    columns = np.abs(np.arange(influence.shape[1]) - center[1])
    distance = np.maximum(rows[:, None], columns[None])
    order = np.argsort(distance, axis=None, kind="stable")
    held = np.cumsum(influence.ravel()[order])
    last = int(np.searchsorted(held, share * held[-1] * (1 - 1e-9)))
    return round(2 * float(distance.ravel()[order[last]]) + 1)


def _modules(model: Any) -> dict[str, nn.Module]:
    """Name the stages that the front end can follow, from the image on."""
    modules = _stages(model)
    if not modules or not all(hasattr(model, name) for name in ("depth", "padding")):
        raise ValueError(
            f"expected a UNet or a ContractingPath, got {type(model).__name__}: this network has "
            "no contracting path to look through"
        )
    if isinstance(model, UNet):  # a partial network stretches its output
        modules["out"] = model.out
    return modules


def _grid(trace: ShapeTrace, length: int, axis: int, pixels: int) -> list[int]:
    """Spread places evenly over the rows or columns for which the network has an answer."""
    answered = trace.output[1 + axis]
    first = (length - answered) / 2
    return [int(first + (place + 0.5) * answered / pixels) for place in range(pixels)]


def _nearest(trace: ShapeTrace, stage: str, length: int, axis: int, wish: int) -> tuple[int, float]:
    """Find the row or column of a stage's map that lies over one of the image, and its middle.

    Every map lies in the middle of the image, whether padded or not; its values are a power of
    two apart.
    """
    level = trace[stage].level or 1
    depth = sum(other.name.startswith("pool") for other in trace)
    step = 2 ** (depth if stage == "bottleneck" else level - 1)
    places = trace[stage].output[1 + axis]
    middle, half = (length - 1) / 2, (places - 1) / 2
    place = min(max(int(np.floor((wish - middle) / step + half + 0.5)), 0), places - 1)
    return place, middle + step * (place - half)


def _picture(influence: np.ndarray) -> str:
    """Draw influence on a logarithmic scale: white the largest, black a thousandth of it."""
    small = shrink(influence, SIDE).astype(np.float64)
    largest = small.max()
    shown = np.zeros_like(small)
    if largest > 0:
        with np.errstate(divide="ignore"):
            shown = 1 + np.log10(small / largest) / DECADES
    return png_url(quantize(shown, LEVELS))


def _frame(
    picture: Image.Image, field: tuple[Span, Span], scale: float, dashed: bool = False
) -> None:
    """Draw a frame around rows and columns of the image: light on dark, seen on every gray."""
    draw = ImageDraw.Draw(picture)
    (top, bottom), (left, right) = field
    left, top, right, bottom = (round(edge * scale) for edge in (left, top, right + 1, bottom + 1))
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    draw.rectangle([left, top, right, bottom], outline=(0, 0, 0), width=4)
    for inset in (1, 2):
        ends = (left + inset, right - inset), (top + inset, bottom - inset)
        for axis, (first, last) in enumerate(ends):
            for start in range(int(first), int(last) + 1, 8):
                stop = min(start + 4, last) if dashed else last
                for across in ends[1 - axis]:
                    line = [(start, across), (stop, across)]
                    points = line if axis == 0 else [(x, y) for y, x in line]
                    draw.line(points, fill=(255, 209, 102) if dashed else (255, 255, 255))
