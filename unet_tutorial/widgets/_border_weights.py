"""Two cells, and how much each pixel between them counts: the paper's weight map to play with."""

from __future__ import annotations

import html
import math
from typing import NamedTuple

import matplotlib
import numpy as np
import traitlets
from PIL import Image
from scipy import ndimage

from unet_tutorial._pictures import _url
from unet_tutorial.losses import balanced_class_weights, border_weight_map
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import html_table, text_table

SIZE = (64, 96)  # rows, columns
STAYS = (32, 22, 16)  # row, column and radius of the left cell
RADIUS = 12  # of the right one
GAPS = (1, 2, 4, 8, 16, 30)  # pixels, of the table
COLORS = 64  # of the stored map
HEAD = ("gap", "largest weight", "pixels above twice", "worth in cell pixels", "one pixel more")


class _Numbers(NamedTuple):
    """What a map comes to."""

    largest: float
    background: float
    heavy: int
    worth: float
    falls: float


class BorderWeightLab(BookWidget):
    """Two cells on a small grid, one of them to drag, and the weight map of the paper's loss.

    Every pixel weighs w(x) = w_c(x) + w0 · exp(−(d1 + d2)² / 2σ²), with d1 and d2 its distances to
    the two cells; inside a cell only w_c (paper, section 3, equation 2). The page computes what
    `unet_tutorial.losses.border_weight_map` does.

    Attributes
    ----------
    gap : int
        Columns of background between the cells, 1 to 30 pixels.
    shift : int
        Pixels by which the right cell stands lower than the left one, −18 to 18.
    w0 : float
        Weight of background without distance to both cells, 0 to 20; 10 in the paper.
    sigma : float
        Width in pixels, 1 to 15; about 5 in the paper.
    balanced : bool
        Whether w_c is `unet_tutorial.losses.balanced_class_weights` of this picture; else 1.

    See Also
    --------
    unet_tutorial.losses.border_weight_map : The map of any cells.

    Examples
    --------
    >>> lab = BorderWeightLab(gap=1)
    >>> lab.words().split(". ")[0]
    'Largest weight in the gap: 10.23'
    >>> print(lab.table())
    two cells in 64×96 pixels, shift 0, w0 10, sigma 5, class weights 1.00 and 1.00
    gap  largest weight  pixels above twice  worth in cell pixels  one pixel more
      1           10.23                 ...
    """

    front_end = "border-weight-lab"
    scripts = ("core.js", "border-weight-lab.js")

    gap = traitlets.Int(4, min=1, max=30).tag(sync=True)
    shift = traitlets.Int(0, min=-18, max=18).tag(sync=True)
    w0 = traitlets.Float(10.0, min=0, max=20).tag(sync=True)
    sigma = traitlets.Float(5.0, min=1, max=15).tag(sync=True)
    balanced = traitlets.Bool(False).tag(sync=True)

    def instances(self) -> np.ndarray:
        """Return the cells, as `unet_tutorial.losses.border_weight_map` takes them.

        Returns
        -------
        numpy.ndarray
            (64, 96) int: 0 is background, 1 the left cell, 2 the right one.

        Examples
        --------
        >>> row = BorderWeightLab(gap=3).instances()[32]
        >>> int((row[:60] == 0).argmin()), int((row == 1).sum()), int((row == 2).sum())
        (6, 33, 25)
        """
        return self._cells(self.gap)

    def weight_map(self) -> np.ndarray:
        """Return the weights of the present state.

        Returns
        -------
        numpy.ndarray
            (64, 96) float32: class weight and border term of each pixel, above 0.

        Examples
        --------
        >>> weights = BorderWeightLab(gap=1).weight_map()
        >>> weights.shape, float(weights.min()), round(float(weights.max()), 2)
        ((64, 96), 1.0, 10.23)
        """
        return self._weights(self.instances())

    def _cells(self, gap: int) -> np.ndarray:
        cells = np.zeros(SIZE, int)
        rows, columns = np.indices(SIZE)
        for number, (row, column, radius) in enumerate(self._discs(gap), start=1):
            # Half a pixel more than the radius makes rounder discs, and whole numbers suffice.
            inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius * (radius + 1)
            cells[inside] = number
        return cells

    def _discs(self, gap: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return row, column and radius of both cells."""
        row, column, radius = STAYS
        return STAYS, (row + self.shift, column + radius + 1 + gap + RADIUS, RADIUS)

    def _class_weights(self, cells: np.ndarray) -> np.ndarray:
        """Return what a pixel of background and one of a cell weigh at least."""
        if not self.balanced:
            return np.ones(2, np.float32)
        return balanced_class_weights([(cells > 0).astype(int)], 2)

    def _weights(self, cells: np.ndarray) -> np.ndarray:
        border = border_weight_map(cells, w0=self.w0, sigma=self.sigma)
        return self._class_weights(cells)[(cells > 0).astype(int)] + border

    def _numbers(self, gap: int) -> _Numbers:
        cells = self._cells(gap)
        weights = self._weights(cells).astype(float)
        background, cell = self._class_weights(cells).tolist()
        heavy = weights[(cells == 0) & (weights > 2 * background)]
        grows = _closest(self._cells(gap + 1)) ** 2 - _closest(cells) ** 2
        return _Numbers(
            largest=float(weights[cells == 0].max()),
            background=background,
            heavy=len(heavy),
            worth=float(heavy.sum()) / cell,
            falls=1 - math.exp(-grows / (2 * self.sigma**2)),
        )

    def words(self) -> str:
        """Return what the page says of the present state.

        Examples
        --------
        >>> BorderWeightLab(w0=0.5).words().split(". ")[1][:22]
        '0 pixels weigh more th'
        """
        found = self._numbers(self.gap)
        return (
            f"Largest weight in the gap: {found.largest:.2f}. {found.heavy} pixels weigh more than "
            f"twice their class weight of {found.background:.2f}, together as much as "
            f"{found.worth:.0f} pixels of cell. One pixel more between the cells lowers the border "
            f"term by {100 * found.falls:.0f} %."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return the numbers of several gaps, the present one among them."""
        rows: list[tuple[str, ...]] = []
        for gap in sorted({*GAPS, self.gap}):
            found = self._numbers(gap)
            rows.append(
                (
                    str(gap),
                    f"{found.largest:.2f}",
                    str(found.heavy),
                    f"{found.worth:.0f}",
                    f"−{100 * found.falls:.0f} %",
                )
            )
        return rows

    def _title(self) -> str:
        background, cell = self._class_weights(self.instances())
        return (
            f"two cells in {SIZE[0]}×{SIZE[1]} pixels, shift {self.shift}, w0 {self.w0:g}, sigma "
            f"{self.sigma:g}, class weights {background:.2f} and {cell:.2f}"
        )

    def table(self) -> str:
        """Return the numbers of several gaps as text."""
        return f"{self._title()}\n{text_table([HEAD, *self.rows()], align='>')}"

    def still(self) -> str:
        """Return the map with its section and a table of several gaps, as HTML."""
        background, cell = self._class_weights(self.instances())
        words = html.escape(self.words())
        return (
            f'<figure style="margin:0;max-width:30rem">{self._drawing()}\n<figcaption>Gap '
            f"{self.gap}; {html.escape(self._title())}. Colors, and curve along the line: "
            f"0 to {max(background, cell) + self.w0:.2f}. {words}</figcaption></figure>\n"
            + html_table(
                "What other gaps come to, in pixels; last column: what one pixel more takes off "
                "the border term",
                HEAD,
                self.rows(),
            )
        )

    def _drawing(self) -> str:
        """Draw the map, the scale of its colors and the section, as the page does."""
        weights = self.weight_map()
        top = float(max(self._class_weights(self.instances()))) + self.w0
        rings = "".join(
            f'<circle cx="{column}" cy="{row}" r="{radius}"{dash}/>'
            for (row, column, radius), dash in zip(
                self._discs(self.gap), ("", ' stroke-dasharray="2"'), strict=True
            )
        )
        (row, first, _), (end, last, _) = self._discs(self.gap)
        path = ""
        for column in range(first, last + 1):
            at = row + math.floor((end - row) * (column - first) / (last - first) + 0.5)
            path += f"V{99 - 28 * weights[at, column] / top:.2f}H{column + 0.5}"
        return (
            f'<svg viewBox="-.5 -.5 96 100" role="img" aria-label="{html.escape(self.words())}">'
            f'<image href="{_map_url(weights / top)}" x="-.5" y="-.5" '
            f'style="image-rendering:pixelated"/><g fill="none" stroke="#fff" '
            f'style="filter:drop-shadow(0 0 .4px #000)">{rings}'
            f'<path d="M{first} {row}L{last} {end}" stroke-width="0.5"/></g>'
            f'<path d="M0 99H95M{first - 0.5} 99{path}V99" fill="none" stroke="currentColor" '
            'stroke-width="0.5"/></svg>'
        )


def _closest(cells: np.ndarray) -> float:
    """Return the smallest d1 + d2 of the background, in pixels."""
    one, two = (ndimage.distance_transform_edt(cells != number) for number in (1, 2))
    return float((one + two)[cells == 0].min())


def _map_url(shares: np.ndarray) -> str:
    """Write a map from 0 to 1 in viridis, over the scale of its colors, as the address of a PNG.

    It is not compressed: the text must be the same under every version of the compressing library.
    """
    height, width = shares.shape
    picture = np.full((height + 5, width), COLORS)  # one color more: none
    picture[:height] = _steps(shares)
    picture[-3:] = _steps(np.arange(width) / width)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 1, COLORS))[:, :3]
    paletted = Image.fromarray(picture.astype(np.uint8), "P")
    paletted.putpalette((colors * 255).round().astype(np.uint8).tobytes() + bytes(3))
    return _url(paletted, "png", compress_level=0, transparency=COLORS)


def _steps(shares: np.ndarray) -> np.ndarray:
    """Turn shares from 0 to 1 into numbers of colors."""
    return np.floor(np.clip(shares, 0, 1) * (COLORS - 1) + 0.5)
