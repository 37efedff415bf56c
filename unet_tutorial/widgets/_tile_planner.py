"""The overlap-tile plan of a prediction, drawn to scale: what each tile reads, and answers for."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import traitlets

from unet_tutorial.inference import Span, Tile, _border, _frame, _margin, tile_plan
from unet_tutorial.shapes import trace_shapes
from unet_tutorial.unet import Padding, UNet
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import html_table, text_table

BLUE = "#2f6fde"
MOST = {"height": 8192, "width": 8192, "tile": 4096, "padding": 0, "depth": 6}
PADDINGS: tuple[Padding, ...] = ("valid", "same")
OPTIONS: dict[str, Any] = {
    "in_channels": 1,
    "num_classes": 2,
    "base_channels": 64,
    "upsampling": "transposed",
    "skip": "concat",
}
ROWS = (
    ("quantity", "value"),
    ("tile, in → kept", "{sides} → {all}"),
    ("not kept on both sides", "{side} − {kept} = {twice} = 2·{lost}"),
    ("mirrored before + after", "{mirrored}"),
    ("tiles", "{grid} = {tiles}"),
    ("from tile to tile", "{step}"),
    ("pixels read per pixel", "{read}"),
    ("the last tile answers for", "{last}"),
    ("maps of a tile, 64 channels", "{maps} MB"),
    ("this tile reads", "{input}"),
    ("this tile answers for", "{output}"),
)
THIN = 'vector-effect="non-scaling-stroke"'
PAGE = (
    '<figure style="align-items:start;display:flex;flex-wrap:wrap;gap:0 1.5rem;margin:0.5rem 0">'
    '<svg role="img" aria-label="{label}" viewBox="{view}" fill="none" stroke="currentColor" '
    'style="background:#8884;flex:1 1 14rem;height:auto;max-height:30rem;max-width:24rem;'
    'overflow:visible"><rect width="{width}" height="{height}" fill="#8884" '
    f'{THIN}/><path d="{{cuts}}" opacity="0.5" {THIN}/><rect {{inside}} fill="{BLUE}" '
    f'fill-opacity="0.4" stroke="{BLUE}" stroke-width="3" {THIN}/><rect {{around}} '
    f'stroke-width="2" stroke-dasharray="6 4" {THIN}/></svg>\n<figcaption style="flex:1 1 14rem">'
    "Dashed: what this tile reads, of which some is mirrored beyond the image. Solid: what it "
    "answers for. {reason}"
    f"{html_table('The plan', ROWS[0], ROWS[1:])}</figcaption></figure>"
)
#: Words of the page and of Python, with places for values.
TEXTS: dict[str, Any] = {
    "page": PAGE,
    "one": "One tile takes the whole image. ",
    "even": "Tiles begin {stride} pixels apart, a multiple of 2^{depth} = {cell}: poolings join "
    "the same pixels as in the whole image, and the result is the same. ",
    "odd": "{kept} is no multiple of 2^{depth} = {cell}: tiles {kept} pixels apart would shift the "
    "pooling grid, and the result would differ from that of the whole image. So they begin "
    "{stride} apart. ",
    "valid": "The convolutions, unpadded, take {lost} pixels off each side.",
    "same": "What lies within {lost} pixels of a tile's edge has seen the zeros beyond it.",
    "label": "An image of {height}×{width} pixels in {grid} tiles. This one reads {input}, and "
    "answers for {output}.",
    "error": "this network (depth {depth}, padding '{padding}') cannot work in tiles of {tile} "
    "pixels, of which it keeps all but {border} on each side. Nearest that work: {smaller} and "
    "{larger}. ",
    "small": "this network (depth {depth}, padding '{padding}') cannot work in tiles of {tile} "
    "pixels, of which it keeps all but {border} on each side. Nearest that work: {larger}, the "
    "smallest. ",
    "lines": 96,  # of the drawing at most: more would be one gray
    "paddings": {name: name for name in PADDINGS},
    "most": list(MOST.values()),
    "options": OPTIONS,
}


class TilePlanner(BookWidget):
    """How an image goes through a network in tiles: the plan that `predict` follows.

    The image with its mirrored margin, the tile that goes into the network (dashed) and the pixels
    that it answers for (solid), drawn to scale; one tile after another.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels, 1 to 8192.
    depth : int
        Poolings of the network, 1 to 6.
    padding : {"valid", "same"}
        As in `unet_tutorial.UNet`: the paper's is ``"valid"``.
    tile : int
        Side in pixels of the tiles that go into the network, 572 in the paper; 1 to 4096.
    index : int
        The tile that is shown, from 0, row by row; beyond the last one, the last.

    Attributes
    ----------
    texts : dict
        Words and figure of the page, which puts the values in.

    See Also
    --------
    unet_tutorial.inference.tile_plan : The plan and its reasons. Used in chapter 5.

    Examples
    --------
    The paper's figure 2: of 572 pixels 388 come out.

    >>> planner = TilePlanner()
    >>> for name, value in planner.numbers()[:5]:
    ...     print(f"{name}: {value}")
    tile, in → kept: 572×572 → 388×388
    not kept on both sides: 572 − 388 = 184 = 2·92
    mirrored before + after: (94 + 94)×(94 + 94)
    tiles: 3×3 = 9
    from tile to tile: 384 = 24·16
    >>> planner.tile = 500
    >>> print(planner.table())
    this network (depth 4, padding 'valid') cannot work in tiles of 500 pixels, ...
    """

    front_end = "tile-planner"
    scripts = ("core.js", "shapes.js", "tile-planner.js")

    height = traitlets.Int(1024, min=1, max=MOST["height"]).tag(sync=True)
    width = traitlets.Int(1024, min=1, max=MOST["width"]).tag(sync=True)
    depth = traitlets.Int(4, min=1, max=MOST["depth"]).tag(sync=True)
    padding = traitlets.Enum(PADDINGS, "valid").tag(sync=True)
    tile = traitlets.Int(572, min=1, max=MOST["tile"]).tag(sync=True)
    index = traitlets.Int(0, min=0).tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        height: int = 1024,
        width: int = 1024,
        *,
        depth: int = 4,
        padding: str = "valid",
        tile: int = 572,
        index: int = 0,
    ) -> None:
        super().__init__(
            height=height,
            width=width,
            depth=depth,
            padding=padding,
            tile=tile,
            index=index,
            texts=TEXTS | {"borders": _borders()},
        )

    def model(self) -> UNet:
        """Return the network of this depth with the paper's 64 channels, without weights."""
        return _network(self.depth, self.padding)

    def plan(self) -> list[Tile]:
        """Return the tiles in which `unet_tutorial.inference.predict` takes this image.

        Returns
        -------
        list of Tile
            Row by row.

        Raises
        ------
        ValueError
            If the network cannot work in tiles of that side; the message names the nearest ones.

        Examples
        --------
        >>> [tile.output_columns for tile in TilePlanner(388, 772).plan()]
        [(0, 388), (388, 772)]
        """
        return tile_plan(self.model(), (self.height, self.width), self.tile)

    def numbers(self) -> list[tuple[str, str]]:
        """Return what the plan costs, and what the chosen tile reads and answers for.

        Raises
        ------
        ValueError
            As `plan`.

        Examples
        --------
        >>> dict(TilePlanner(512, 512, padding="same", tile=512).numbers())["tiles"]
        '1×1 = 1'
        """
        values = self._values()
        return [(name, words.format(**values)) for name, words in ROWS[1:]]

    def reason(self) -> str:
        """Return why tiles lie as they do.

        Raises
        ------
        ValueError
            As `plan`.

        Examples
        --------
        >>> TilePlanner(388, 388).reason()
        'One tile takes the whole image. The convolutions, unpadded, take 92 pixels off each side.'
        """
        return str(self._values()["reason"])

    def table(self) -> str:
        """Return the numbers of the plan as text, or why there is none."""
        try:
            return text_table([ROWS[0], *self.numbers()], align="<>")
        except ValueError as error:
            return str(error)

    def still(self) -> str:
        """Return the drawing and the numbers of the plan, as HTML."""
        try:
            return PAGE.format(**self._values())
        except ValueError as error:
            return f"<p>{html.escape(str(error))}</p>"

    def _axes(self) -> tuple[_Axis, _Axis]:
        """Read off the plan what concerns rows, and columns."""
        plan, model = self.plan(), self.model()
        return (
            _Axis.of(self.height, model, [(tile.input_rows, tile.output_rows) for tile in plan]),
            _Axis.of(
                self.width, model, [(tile.input_columns, tile.output_columns) for tile in plan]
            ),
        )

    def _values(self) -> dict[str, Any]:
        """Compute the numbers for `TEXTS`; the page does the same."""
        rows, columns = axes = self._axes()
        tiles = len(rows.spans) * len(columns.spans)
        at = divmod(min(self.index, tiles - 1), len(columns.spans))
        (input_rows, output_rows), (input_columns, output_columns) = (
            axis.spans[place] for axis, place in zip(axes, at, strict=True)
        )
        # Where the axes differ, the one along which there are several tiles tells more.
        shown = rows if len(rows.spans) > 1 or len(columns.spans) == 1 else columns
        cell = 2**self.depth
        stride = shown.kept - shown.kept % cell
        read = tiles * rows.side * columns.side / (self.height * self.width)
        maps = trace_shapes(self.model(), (rows.side, columns.side)).activation_bytes
        cuts = [f"M0 {start}H{self.width}" for _, (start, _) in rows.spans[1:]]
        cuts += [f"M{start} 0V{self.height}" for _, (start, _) in columns.spans[1:]]
        values: dict[str, Any] = {
            "height": self.height,
            "width": self.width,
            "depth": self.depth,
            "cell": cell,
            "side": shown.side,
            "lost": shown.lost,
            "twice": 2 * shown.lost,
            "kept": shown.kept,
            "stride": stride,
            "step": f"{stride} = {stride // cell}·{cell}" if tiles > 1 else "–",
            "sides": f"{rows.side}×{columns.side}",
            "all": f"{rows.kept}×{columns.kept}",
            "mirrored": "×".join(f"({axis.before} + {axis.after})" for axis in axes),
            "grid": f"{len(rows.spans)}×{len(columns.spans)}",
            "tiles": tiles,
            "read": f"{read:.2f}",
            "last": "×".join(str(stop - start) for _, (start, stop) in (a.spans[-1] for a in axes)),
            "maps": f"{maps / 1e6:.1f}",
            "input": _place(input_rows, input_columns),
            "output": _place(output_rows, output_columns),
            "view": f"{-columns.before} {-rows.before} {columns.length} {rows.length}",
            "cuts": "" if len(rows.spans) + len(columns.spans) > TEXTS["lines"] else "".join(cuts),
            "inside": _box(output_rows, output_columns),
            "around": _box(input_rows, input_columns),
        }
        kind = "one" if tiles == 1 else "even" if stride == shown.kept else "odd"
        why = TEXTS[kind] + (TEXTS[self.padding] if shown.lost else "")
        texts = {"reason": why.strip(), "label": TEXTS["label"]}
        return values | {name: words.format(**values) for name, words in texts.items()}


@dataclass(frozen=True)
class _Axis:
    """What concerns the rows, or the columns, of a plan; all in pixels of the image."""

    side: int  # of a tile
    kept: int  # of it, away from the image's border
    lost: int  # on each side of it
    before: int  # mirrored
    after: int  # mirrored
    length: int  # of the image with what continues it
    spans: list[tuple[Span, Span]]  # what each tile reads, and answers for

    @classmethod
    def of(cls, image: int, model: UNet, spans: list[tuple[Span, Span]]) -> _Axis:
        frame = _frame(image, model)
        start, stop = spans[0][0]
        lost = (
            _margin(model)
            if stop - start == frame.length
            else _borders()[model.padding][model.depth - 1]
        )
        return cls(
            side=stop - start,
            kept=stop - start - 2 * lost,
            lost=lost,
            before=frame.before,
            after=frame.length - image - frame.before,
            length=frame.length,
            spans=sorted(set(spans)),
        )


@cache
def _network(depth: int, padding: Padding) -> UNet:
    with torch.device("meta"):  # shapes need no weights
        return UNet(1, 2, depth=depth, padding=padding)


@cache
def _borders() -> dict[str, list[int]]:
    """Give the pixels that a tile loses on each side, by padding and depth from 1."""
    depths = range(1, MOST["depth"] + 1)
    return {
        padding: [_border(_network(depth, padding)) for depth in depths] for padding in PADDINGS
    }


def _place(rows: Span, columns: Span) -> str:
    return f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]}"


def _box(rows: Span, columns: Span) -> str:
    return (
        f'x="{columns[0]}" y="{rows[0]}" width="{columns[1] - columns[0]}" '
        f'height="{rows[1] - rows[0]}"'
    )
