"""Convolution, pooling and transposed convolution, one number at a time, on real numbers."""

from __future__ import annotations

import contextlib
import html
import io
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

import numpy as np
import torch
import traitlets
from torch.nn import functional as F

from unet_tutorial._pictures import data_url
from unet_tutorial.datasets import load
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import captioned, html_table, text_table

#: Kernels to choose from: how much brighter it is to the right than to the left, a mean that can
#: be computed by hand, and the one that changes nothing.
KERNELS: dict[str, Sequence[Sequence[float]]] = {
    "edge": ((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)),
    "blur": ((0.1, 0.1, 0.1), (0.1, 0.2, 0.1), (0.1, 0.1, 0.1)),
    "identity": ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
}

#: Stencils to choose from. The last but one overlaps unevenly, and yet makes no checkerboard; the
#: last has no overlap and makes one.
STENCILS: dict[str, Sequence[Sequence[float]]] = {
    "kernel 2, all 1": ((1, 1),) * 2,
    "kernel 3, all 1": ((1, 1, 1),) * 3,
    "kernel 3, bilinear": ((0.25, 0.5, 0.25), (0.5, 1, 0.5), (0.25, 0.5, 0.25)),
    "kernel 2, unequal": ((1, 2), (3, 4)),
}

LARGEST = 12  # rows and columns, so that the numbers can be read on a narrow screen

SQUARES = ("square", "largest", "where", "thrown away")
PLACES = ("top left", "top right", "bottom left", "bottom right")

Rows = list[list[float]]


@cache
def micrograph_patch(size: int, levels: int) -> tuple[tuple[int, ...], ...]:
    """Cut a patch out of a synthetic micrograph, where a membrane (dark) passes through a cell.

    Parameters
    ----------
    size : int
        Rows and columns.
    levels : int
        Number of gray levels: the darkest pixel is 0, the brightest ``levels - 1``.

    Returns
    -------
    tuple of tuple of int
        (size, size).

    Examples
    --------
    >>> micrograph_patch(9, levels=10)[6]
    (5, 6, 5, 3, 2, 0, 1, 2, 3)
    """
    with contextlib.redirect_stdout(io.StringIO()):
        image = load("membranes", n_images=2, size=64).images[0][0]
    patch = image[8 : 8 + size, 37 : 37 + size]
    scaled = (patch - patch.min()) / (patch.max() - patch.min()) * (levels - 1)
    return tuple(tuple(map(int, row)) for row in np.round(scaled))


class _Stepper(BookWidget):
    """A walk over the places of a map, row by row."""

    position = traitlets.Int(0, min=0).tag(sync=True)
    choices = traitlets.Dict().tag(sync=True)  # what the page lets readers choose, by trait

    def walked(self) -> tuple[int, int]:
        """Return rows and columns of the map whose places are walked."""
        raise NotImplementedError

    def place(self) -> tuple[int, int]:
        """Return row and column of the place that is shown."""
        row, column = divmod(self.position, self.walked()[1])
        return row, column

    @traitlets.validate("position")
    def _exists(self, proposal: Any) -> int:
        rows, columns = self.walked()
        if proposal["value"] >= rows * columns:
            raise ValueError(
                f"position must be below {rows * columns}, since there are {rows}×{columns} "
                f"places, counted row by row from 0; got {proposal['value']}"
            )
        return int(proposal["value"])


class ConvolutionStepper(_Stepper):
    """A 3×3 convolution of a small image: nine products and their sum, for each place.

    Parameters
    ----------
    image : array_like, optional
        (H, W), 3 to 12 rows and columns, 0 is black. By default 9×9 pixels of a synthetic
        micrograph in ten gray levels.
    weights : array_like or dict, optional
        A (3, 3) kernel, or several by name, of which the reader chooses. By default ``"edge"``,
        ``"blur"`` and ``"identity"``.
    padding : {"same", "valid"}
        ``"same"`` lays a ring of zeros around the image (``padding=1``), ``"valid"`` does not.
    stride : {1, 2}
        Pixels from one place of the kernel to the next.
    **options
        Other traits: ``kernel``, the name of the chosen one; ``position``, the output that is
        shown, counted row by row from 0.

    Raises
    ------
    ValueError
        If image or weights have another shape, or are not finite, or there is no such place.
        `traitlets.TraitError`, of the other traits.

    Examples
    --------
    >>> stepper = ConvolutionStepper([[1, 1, 1, 5, 5, 5]] * 5, padding="valid", position=1)
    >>> print(stepper.table())
    convolution, kernel 'edge', padding 'valid', stride 1: 5×6 -> 3×4
       0  12  12   0
       0  12  12   0
       0  12  12   0
    output at row 0, column 1:
    1·(−1) + 1·0 + 5·1 + 1·(−1) + 1·0 + 5·1 + 1·(−1) + 1·0 + 5·1 = 12
    """

    front_end = "convolution-stepper"
    scripts = ("core.js", "convolution-stepper.js")

    image: traitlets.List[Any] = traitlets.List().tag(sync=True)
    weights = traitlets.Dict().tag(sync=True)
    kernel = traitlets.Unicode().tag(sync=True)
    padding = traitlets.Enum(["same", "valid"], "same").tag(sync=True)
    stride = traitlets.Enum([1, 2], 1).tag(sync=True)

    def __init__(
        self,
        image: Any = None,
        weights: Any = None,
        *,
        padding: str = "same",
        stride: int = 1,
        **options: Any,
    ) -> None:
        kernels = _named(KERNELS if weights is None else weights, "weights", (3,))
        super().__init__(
            image=_rows(micrograph_patch(9, 10) if image is None else image, "image", 3),
            weights=kernels,
            padding=padding,
            stride=stride,
            choices={"kernel": [*kernels], "padding": ["same", "valid"], "stride": [1, 2]},
            **{"kernel": next(iter(kernels)), **options},
        )

    @traitlets.validate("kernel")
    def _known(self, proposal: Any) -> str:
        return _one_of(proposal["value"], self.weights, "kernel")

    @traitlets.observe("padding", "stride")
    def _fewer(self, change: Any) -> None:
        rows, columns = self.walked()
        self.position = min(self.position, rows * columns - 1)

    def walked(self) -> tuple[int, int]:
        """Return rows and columns of the output."""
        lost = 1 if self.padding == "same" else 3
        height, width = len(self.image), len(self.image[0])
        return (height - lost) // self.stride + 1, (width - lost) // self.stride + 1

    def output(self) -> np.ndarray:
        """Return what `torch.nn.functional.conv2d` makes of the image."""
        padding = int(self.padding == "same")
        kernel = _tensor(self.weights[self.kernel])
        return F.conv2d(_tensor(self.image), kernel, stride=self.stride, padding=padding)[
            0, 0
        ].numpy()

    def sum(self) -> str:
        """Write out the nine products of the place that is shown."""
        row, column = self.place()
        padded = np.pad(self.image, int(self.padding == "same"))
        top, left = row * self.stride, column * self.stride
        pairs = zip(
            padded[top : top + 3, left : left + 3].flat,
            np.ravel(self.weights[self.kernel]),
            strict=True,
        )
        products = " + ".join(
            f"{_decimal(x)}·" + (f"({_decimal(w)})" if w < 0 else _decimal(w)) for x, w in pairs
        )
        return f"{products} = {_decimal(self.output()[row, column])}"

    def table(self) -> str:
        """Return the output as plain text, and the sum of the place that is shown."""
        row, column = self.place()
        size = _size(self.image)
        return "\n".join(
            [
                f"convolution, kernel {self.kernel!r}, padding {self.padding!r}, stride "
                f"{self.stride}: {size} -> {_size(self.output())}",
                _text(self.output()),
                f"output at row {row}, column {column}:",
                self.sum(),
            ]
        )

    def still(self) -> str:
        """Return pictures and numbers of image, kernel and output, and the sum."""
        row, column = self.place()
        zeros = "; around it lies a ring of zeros" if self.padding == "same" else ""
        output, kernel = self.output(), self.weights[self.kernel]
        pictures = _picture(self.image, "image") + _picture(output, "output")
        return _figure(
            pictures,
            f"A 3×3 convolution, kernel “{html.escape(self.kernel)}”, padding “{self.padding}”, "
            f"stride {self.stride}{zeros}. Output at row {row}, column {column}: {self.sum()}",
            _table(self.image, "image") + _table(kernel, "kernel") + _table(output, "output"),
        )


class PoolingStepper(_Stepper):
    """2×2 max pooling of a small map: who wins each square, and what the output cannot tell.

    Parameters
    ----------
    values : array_like, optional
        (H, W), 2 to 12 rows and columns. By default 8×8 pixels of a synthetic micrograph in a
        hundred gray levels.
    **options
        Other traits: ``position``, the square that is shown, counted row by row from 0.

    Raises
    ------
    ValueError
        If the values have another shape, or are not finite, or there is no such square.

    Examples
    --------
    >>> stepper = PoolingStepper([[9, 1, 2, 0], [3, 4, 8, 5]], position=1)
    >>> print(stepper.table())
    2×2 max pooling: 2×4 -> 1×2
    9  8
    square           largest  where        thrown away
    row 0, column 0        9  top left     1, 3, 4
    row 0, column 1        8  bottom left  2, 0, 5
    """

    front_end = "pooling-stepper"
    scripts = ("core.js", "convolution-stepper.js", "pooling-stepper.js")

    values: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, values: Any = None, **options: Any) -> None:
        given = micrograph_patch(8, 100) if values is None else values
        super().__init__(values=_rows(given, "values", 2), **options)

    def walked(self) -> tuple[int, int]:
        """Return rows and columns of the output."""
        return len(self.values) // 2, len(self.values[0]) // 2

    def output(self) -> np.ndarray:
        """Return what `torch.nn.functional.max_pool2d` makes of the values."""
        return F.max_pool2d(_tensor(self.values), 2)[0, 0].numpy()

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return of each square: where it is, the largest, where that stood, what is lost."""
        found = []
        for row, column in np.ndindex(*self.walked()):
            square = np.array(self.values)[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            four = [_decimal(value) for value in square.flat]
            winner = int(square.argmax())
            largest = four.pop(winner)
            found.append((f"row {row}, column {column}", largest, PLACES[winner], ", ".join(four)))
        return found

    def table(self) -> str:
        """Return the pooled map as plain text, and of each square who won."""
        title = f"2×2 max pooling: {_size(self.values)} -> {_size(self.output())}"
        squares = text_table([SQUARES, *self.rows()], align="<><")
        return f"{title}\n{_text(self.output())}\n{squares}"

    def still(self) -> str:
        """Return pictures and numbers of the map and the pooled one, and of each square."""
        return _figure(
            _picture(self.values, "map") + _picture(self.output(), "pooled"),
            "2×2 max pooling keeps the largest of each square, and not where it stood.",
            _table(self.values, "map")
            + _table(self.output(), "pooled")
            + html_table("Who wins each square", SQUARES, self.rows()),
        )


class TransposedStepper(_Stepper):
    """A transposed convolution with stride 2: each value of a small map stamps a stencil.

    Parameters
    ----------
    values : array_like, optional
        (H, W), 1 to 5 rows and columns. By default 4×4 pixels of a synthetic micrograph in ten
        gray levels.
    stencil : array_like, dict or str, optional
        A square of 2, 3 or 4 weights a side; or several by name, of which the reader chooses; or
        the name of one of the default ones: ``"kernel 2, all 1"``, ``"kernel 3, all 1"``,
        ``"kernel 3, bilinear"``, ``"kernel 2, unequal"``.
    **options
        Other traits. ``input``: ``"given"`` or ``"flat"``, all 1. ``show``: ``"sum"`` of the
        stamps, or their ``"overlap"``, how many meet on each pixel. ``position``: the value that
        is stamped, counted row by row from 0.

    Raises
    ------
    ValueError
        If values or stencil have another shape, or are not finite, or there is no such place.
        `traitlets.TraitError`, of the other traits.

    Examples
    --------
    >>> print(TransposedStepper([[1, 2], [0, 3]], [[1, -1], [0, 2]]).table())
    transposed convolution, stencil 'given', stride 2: 2×2 -> 4×4
       1  −1   2  −2
       0   2   0   4
       0   0   3  −3
       0   0   0   6
    stamps on each pixel: 1
    """

    front_end = "transposed-stepper"
    scripts = ("core.js", "convolution-stepper.js", "transposed-stepper.js")

    values: traitlets.List[Any] = traitlets.List().tag(sync=True)
    stencils = traitlets.Dict().tag(sync=True)
    stencil = traitlets.Unicode().tag(sync=True)
    input = traitlets.Enum(["given", "flat"], "given").tag(sync=True)
    show = traitlets.Enum(["sum", "overlap"], "sum").tag(sync=True)

    def __init__(self, values: Any = None, stencil: Any = None, **options: Any) -> None:
        own = stencil is None or isinstance(stencil, str)
        stencils = _named(STENCILS if own else stencil, "stencil", (2, 3, 4))
        super().__init__(
            values=_rows(micrograph_patch(4, 10) if values is None else values, "values", 1, 5),
            stencils=stencils,
            choices={
                "stencil": [*stencils],
                "input": ["given", "flat"],
                "show": ["sum", "overlap"],
            },
            stencil=stencil if isinstance(stencil, str) else next(iter(stencils)),
            **options,
        )

    @traitlets.validate("stencil")
    def _known(self, proposal: Any) -> str:
        return _one_of(proposal["value"], self.stencils, "stencil")

    def walked(self) -> tuple[int, int]:
        """Return rows and columns of the small map."""
        return len(self.values), len(self.values[0])

    def small(self) -> np.ndarray:
        """Return the map that is enlarged: the given one, or the flat one."""
        return np.ones(self.walked()) if self.input == "flat" else np.array(self.values)

    def output(self) -> np.ndarray:
        """Return what `torch.nn.functional.conv_transpose2d` makes of the small map."""
        stencil = _tensor(self.stencils[self.stencil])
        return F.conv_transpose2d(_tensor(self.small()), stencil, stride=2)[0, 0].numpy()

    def overlap(self) -> np.ndarray:
        """Return how many stamps meet on each pixel."""
        ones = torch.ones_like(_tensor(self.stencils[self.stencil]))
        flat = torch.ones_like(_tensor(self.values))
        return F.conv_transpose2d(flat, ones, stride=2)[0, 0].numpy()

    def bilinear(self) -> np.ndarray:
        """Return what bilinear interpolation makes of it, with ``align_corners=False``."""
        small = _tensor(self.small())
        wide = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
        return wide[0, 0].numpy()

    def _meet(self) -> str:
        return ", ".join(str(int(count)) for count in np.unique(self.overlap()))

    def table(self) -> str:
        """Return the large map as plain text, and how many stamps meet on a pixel."""
        title = (
            f"transposed convolution, stencil {self.stencil!r}, stride 2: {_size(self.values)} -> "
            f"{_size(self.output())}"
        )
        return "\n".join([title, _text(self.output()), f"stamps on each pixel: {self._meet()}"])

    def still(self) -> str:
        """Return pictures and numbers of small map, stencil, large map and bilinear one."""
        small, large, wide = self.small(), self.output(), self.bilinear()
        pictures = _picture(small, "small map") + _picture(large, "large map")
        return _figure(
            pictures + _picture(wide, "bilinear"),
            f"A transposed convolution with stride 2, stencil “{html.escape(self.stencil)}”: each "
            f"value stamps the stencil, {self._meet()} of them on a pixel. Beside it bilinear "
            "interpolation.",
            _table(small, "small map")
            + _table(self.stencils[self.stencil], "stencil")
            + _table(large, "large map")
            + _table(wide, "bilinear"),
        )


def _tensor(values: Any) -> torch.Tensor:
    """Make a batch of one image with one channel; double precision, as JavaScript computes."""
    return torch.tensor(np.asarray(values, float))[None, None]


def _rows(values: Any, name: str, least: int, most: int = LARGEST) -> Rows:
    """Check a small map, and write it as lists, whole numbers as such."""
    array = np.asarray(values, float)
    if array.ndim != 2 or not all(least <= length <= most for length in array.shape):
        raise ValueError(
            f"{name} must have {least} to {most} rows and columns, got shape {array.shape}: cut "
            "out a part, as in image[0, 100:109, 100:109]"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity among the values")
    return [[int(value) if value == int(value) else float(value) for value in row] for row in array]


def _named(given: Any, name: str, sides: tuple[int, ...]) -> dict[str, Rows]:
    """Check kernels, one or several by name."""
    kernels = given if isinstance(given, Mapping) else {"given": given}
    if not kernels:
        raise ValueError(f"{name} names no kernel: give at least one")
    for kernel in kernels.values():
        shape = np.shape(kernel)
        if shape not in [(side, side) for side in sides]:
            expected = " or ".join(f"({side}, {side})" for side in sides)
            raise ValueError(f"a kernel of {name} must have shape {expected}, got {shape}")
    return {str(key): _rows(kernel, name, 2) for key, kernel in kernels.items()}


def _one_of(value: str, known: Mapping[str, Any], name: str) -> str:
    if known and value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def _decimal(value: float) -> str:
    """Write a number as the page does: at most two decimals, halves away from zero.

    Examples
    --------
    >>> _decimal(-1.5), _decimal(2.0), _decimal(1 / 9), _decimal(4.625)
    ('−1.5', '2', '0.11', '4.63')
    """
    rounded = Decimal(float(value)).quantize(Decimal("0.01"), ROUND_HALF_UP)
    text = str(rounded).rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "−")


def _size(values: Any) -> str:
    return "×".join(map(str, np.shape(values)))


def _text(values: Any) -> str:
    """Write a map as lines of plain text."""
    cells = [[_decimal(value) for value in row] for row in np.asarray(values)]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join("  ".join(cell.rjust(width) for cell in row) for row in cells)


def _table(values: Any, name: str) -> str:
    """Write a map as a table, with its rows and columns counted from 0."""
    array = np.asarray(values)
    head = ["", *map(str, range(array.shape[1]))]
    rows = [[str(k), *map(_decimal, row)] for k, row in enumerate(array)]
    return html_table(f"{name}, {_size(array)}", head, rows)


def _picture(values: Any, name: str) -> str:
    array = np.asarray(values, float)
    low, high = array.min(), array.max()
    address = data_url((array - low) / ((high - low) or 1.0))
    words = f"{name}: black is {_decimal(low)}, white {_decimal(high)}"
    width = 0.75 * array.shape[1]
    return captioned(address, words, words, f"image-rendering:pixelated;width:{width:g}rem")


def _figure(pictures: str, caption: str, tables: str) -> str:
    return (
        f'<figure style="margin:0"><div style="display:flex;flex-wrap:wrap;gap:1rem">{pictures}'
        f"</div>\n<figcaption>{caption}</figcaption></figure>\n{tables}"
    )
