"""From a trained network and an image of any size to class probabilities.

Large images go through the network in overlapping tiles (paper, section 2 and figure 2), which
chapter 5 explains.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from unet_tutorial.devices import Precision, autocast, choose_precision
from unet_tutorial.shapes import receptive_field
from unet_tutorial.unet import UNet, fits

TileSide = int | Literal["auto"] | None
Span = tuple[int, int]

WHOLE_PIXELS = 1024**2  # up to here "auto" takes the image in one pass
TILE_PIXELS = 704**2  # larger tiles compute less twice, smaller ones stay in the processor's cache


@dataclass(frozen=True)
class Tile:
    """One pass of the network: what it reads, and which pixels are kept of its answer.

    All are (start, stop) in pixels of the image, as in a slice. What is read may begin before 0
    and end beyond the image: those pixels are mirrored.

    Attributes
    ----------
    input_rows, input_columns : (int, int)
        What goes into the network.
    output_rows, output_columns : (int, int)
        The pixels that this tile answers for. Together the tiles answer for every pixel once.

    Examples
    --------
    >>> Tile((-94, 478), (-94, 478), (0, 386), (0, 386)).output_rows
    (0, 386)
    """

    input_rows: Span
    input_columns: Span
    output_rows: Span
    output_columns: Span


def predict(
    model: UNet,
    image: ArrayLike | Tensor,
    *,
    precision: Precision = "auto",
    tile: TileSide = "auto",
    flips_and_turns: bool = False,
    progress: bool = False,
) -> np.ndarray:
    """Predict the class probabilities of every pixel of an image of any size.

    The image is continued beyond its borders by mirroring (paper, section 2), as far as the
    network needs to take it and to give back every pixel: a padded network gets the next multiple
    of 2^depth, an unpadded one its margin as well. A large image goes through the network in
    tiles, one after another, and the result is that of the whole image; see `tile_plan`.

    Parameters
    ----------
    model : UNet
        A network; it stays in the mode (training or evaluation) that it is in, but predicts in
        evaluation mode: no drop-out, stored statistics for batch normalization.
    image : array or Tensor
        (H, W) or (C, H, W). Floating point as in training (0 to 1), or 8-bit, which is divided by
        255.
    precision : {"auto", "float32", "bfloat16", "float16"}
        As in `unet_tutorial.devices.choose_precision`.
    tile : int, "auto" or None
        As in `tile_plan`: the side of the tiles in pixels; None for the whole image at once. It
        decides how much memory the prediction takes, and changes nothing in the result.
    flips_and_turns : bool
        Whether to average the probabilities over the eight positions that flips and quarter turns
        bring the image into (the paper averages over seven rotations), in eight times the time.
    progress : bool
        Whether to show a bar that counts the tiles.

    Returns
    -------
    numpy.ndarray
        (num_classes, H, W) float32; the classes of a pixel sum to 1. The class itself is
        ``predict(model, image).argmax(0)``.

    Raises
    ------
    ValueError
        If the image is not (H, W) or (C, H, W), has not the network's channels, is empty or holds
        values that are not finite; or if the network cannot work in tiles of that side.

    Examples
    --------
    >>> import numpy as np
    >>> from unet_tutorial import UNet
    >>> model = UNet(1, 2, base_channels=2, depth=2, padding="valid")
    >>> image = np.random.default_rng(0).random((50, 139))
    >>> whole = predict(model, image, precision="float32", tile=None)
    >>> whole.shape
    (2, 50, 139)
    >>> tiled = predict(model, image, precision="float32", tile=60)
    >>> np.allclose(tiled, whole, rtol=0, atol=1e-5)
    True
    """
    pixels = _as_image(image, model)
    result = np.zeros((model.num_classes, *pixels.shape[-2:]), dtype=np.float32)
    # Both are views: what is predicted for a turned image lands in its place in the one result.
    views = list(zip(_positions(pixels), _positions(result), strict=True))
    if not flips_and_turns:
        views = views[:1]
    plans = {size: tile_plan(model, size, tile) for size in {seen.shape[-2:] for seen, _ in views}}
    passes = [(seen, kept, one) for seen, kept in views for one in plans[seen.shape[-2:]]]
    trim = model.padding == "same" and len(passes) > len(views)  # whole images stay whole
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast(device, choose_precision(device, precision)):
            for seen, kept, one in tqdm(passes, unit="tile", ncols=79) if progress else passes:
                answer = _run(model, _cut_out(seen, one).to(device), one, trim)
                kept[:, slice(*one.output_rows), slice(*one.output_columns)] += answer / len(views)
    finally:
        model.train(was_training)
    return result


def tile_plan(model: UNet, size: tuple[int, int], tile: TileSide = "auto") -> list[Tile]:
    """List the tiles in which an image is predicted (paper, section 2: overlap-tile strategy).

    Tiles give the same result as the whole image for three reasons. Only those pixels of a tile
    are kept that do not see beyond its border: the paper's network puts out no others, a padded
    one, which meets zeros there, gives up as many as its receptive field reaches out. All tiles
    begin at multiples of 2^depth, so that every pooling joins the same pixels. And at the border
    of the image a padded network meets its zeros as it does when it sees the whole image.

    Parameters
    ----------
    model : UNet
        The network.
    size : (int, int)
        Height and width of the image.
    tile : int, "auto" or None
        Side in pixels of the squares that go into the network, 572 in the paper; where the image
        with what continues it is smaller, so are they. ``"auto"``: the whole image up to about a
        megapixel, beyond that the rectangles of up to 704² pixels (more below depth 4, where the
        border is wide) that compute the least twice. None: always the whole image.

    Returns
    -------
    list of Tile
        Row by row, all of one size.

    Raises
    ------
    ValueError
        If the network cannot take tiles of that side or would have to give up all their pixels:
        the message names the nearest sides that work. Or if it is no `UNet`.

    Examples
    --------
    The paper's figure 2: of 572 pixels 388 come out. The next tile begins 384 pixels on, a
    multiple of 16.

    >>> from unet_tutorial import UNet
    >>> paper = UNet(1, 2, base_channels=1, padding="valid")
    >>> for tile in tile_plan(paper, (388, 772), 572):
    ...     print(tile.input_columns, "->", tile.output_columns)
    (-92, 480) -> (0, 388)
    (292, 864) -> (388, 772)
    """
    frames = [_frame(length, model) for length in size]
    lengths = [frame.length for frame in frames]
    if tile == "auto" and (not isinstance(model, UNet) or np.prod(lengths) <= WHOLE_PIXELS):
        tile = None
    if tile is None:
        overlap, sides = _Overlap(model, 0), lengths
    elif not isinstance(model, UNet):
        raise ValueError(
            f"how far a {type(model).__name__} sees is not known here, so it cannot work in "
            "tiles: leave tile='auto' or pass tile=None"
        )
    else:
        overlap = _Overlap(model, _border(model))
        if tile == "auto":
            sides = _least_work(lengths, overlap)
        else:
            overlap.check(tile)
            sides = [min(tile, length) for length in lengths]
    rows, columns = (
        _along(frame, side, overlap) for frame, side in zip(frames, sides, strict=True)
    )
    return [
        Tile(input_rows, input_columns, output_rows, output_columns)
        for input_rows, output_rows in rows
        for input_columns, output_columns in columns
    ]


def _as_image(image: Any, model: UNet) -> np.ndarray:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    given = array.shape
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] != model.in_channels or 0 in array.shape:
        raise ValueError(
            f"expected an image of shape (H, W) or ({model.in_channels}, H, W), got {given}; a "
            "color image of shape (H, W, 3) becomes (3, H, W) with image.transpose(2, 0, 1)"
        )
    if array.dtype == np.uint8:
        array = array / np.float32(255)
    elif array.dtype.kind != "f":
        raise ValueError(
            f"expected floating-point or 8-bit values, got {array.dtype}: scale the image to 0..1"
        )
    if not np.isfinite(array).all():
        raise ValueError("the image holds values that are not finite (NaN or infinity)")
    return np.ascontiguousarray(array, dtype=np.float32)


def _positions(array: np.ndarray) -> Iterator[np.ndarray]:
    """Turn and flip (C, H, W) in all eight ways, itself first; views, nothing is copied."""
    for flipped in (array, array[..., ::-1]):
        for quarters in range(4):
            yield np.rot90(flipped, quarters, axes=(-2, -1))


def _run(model: UNet, batch: Tensor, tile: Tile, trim: bool) -> np.ndarray:
    """Give the probabilities of the pixels that are kept: (num_classes, rows, columns)."""
    margins = (
        tile.output_rows[0] - tile.input_rows[0],
        tile.input_rows[1] - tile.output_rows[1],
        tile.output_columns[0] - tile.input_columns[0],
        tile.input_columns[1] - tile.output_columns[1],
    )
    trimmed = _trimmed(model, margins) if trim else contextlib.nullcontext(_margin(model))
    with trimmed as gone:
        logits = model(batch)[0]
    kept = _without(logits, np.array(margins) - gone)
    return kept.float().softmax(dim=0).cpu().numpy()


@contextlib.contextmanager
def _trimmed(model: UNet, margins: Sequence[int]) -> Iterator[np.ndarray]:
    """Let the expansive path of a padded network compute no more than the kept pixels need.

    Cut away before every up-convolution is what would reach only the margins: two convolutions
    reach two pixels, bilinear upsampling one more. A padded tile then costs what an unpadded one
    does. Yields what the logits lack: top, bottom, left, right.
    """
    reach = 2 if model.options["upsampling"] == "transposed" else 3
    lacking = []  # in the input of each up-convolution, from the top of the U down
    for _ in model.expansive:
        margins = [max(margin - reach, 0) // 2 for margin in margins]
        lacking.append(np.array(margins))

    def cut(below: np.ndarray, own: np.ndarray) -> Callable[[nn.Module, Any], Any]:
        return lambda module, maps: (
            _without(maps[0], own - 2 * below),  # the one below has cut as well
            _without(maps[1], 2 * own),
        )

    with contextlib.ExitStack() as hooks:
        deeper = [*lacking[1:], np.zeros_like(lacking[0])]
        for up, own, below in zip(reversed(model.expansive), lacking, deeper, strict=True):
            hooks.callback(up.register_forward_pre_hook(cut(below, own)).remove)
        yield 2 * lacking[0]


def _without(maps: Tensor, sides: np.ndarray) -> Tensor:
    """Take pixels off the top, bottom, left and right of (..., H, W); a view."""
    top, bottom, left, right = sides
    return maps[..., top : maps.shape[-2] - bottom, left : maps.shape[-1] - right]


def _cut_out(pixels: np.ndarray, tile: Tile) -> Tensor:
    """Take a tile out of (C, H, W), mirrored where it leaves the image: (1, C, h, w)."""
    rows = _mirrored(tile.input_rows, pixels.shape[-2])
    columns = _mirrored(tile.input_columns, pixels.shape[-1])
    batch = torch.from_numpy(pixels.take(rows, axis=1).take(columns, axis=2))[None]
    # Not `contiguous`: it leaves a single channel as it is, and the layers would not follow.
    return batch.to(memory_format=torch.channels_last)


def _mirrored(span: Span, length: int) -> np.ndarray:
    """Name the pixel that each place shows: the first and last are not repeated (``reflect``).

    A picture between two mirrors comes back every 2·length - 2 pixels, however far one goes.
    """
    if length == 1:
        return np.zeros(span[1] - span[0], dtype=np.intp)
    period = 2 * length - 2
    places = np.arange(*span) % period
    return np.minimum(places, period - places)


class _Frame(NamedTuple):
    """One axis of the image with what continues it: what the network gets for the whole image."""

    image: int  # pixels of the image
    before: int  # mirrored pixels before it
    length: int  # all of them


def _frame(image: int, model: UNet) -> _Frame:
    margin = _margin(model)
    length = image + 2 * margin
    while not fits(length, depth=model.depth, padding=model.padding):
        length += 1
    return _Frame(image, margin + (length - image - 2 * margin) // 2, length)


def _margin(model: UNet) -> int:
    """Give the pixels that the network's output lacks on each side."""
    return 0 if model.padding == "same" else 6 * 2**model.depth - 4


def _border(model: UNet) -> int:
    """Give the pixels on each side of a tile that are missing in the output or see beyond it.

    An unpadded network sees nothing beyond it, but for bilinear upsampling, which repeats the
    outermost pixels of a map.
    """
    margin, cell = _margin(model), 2**model.depth
    smallest = _frame(1, model).length
    last = smallest - 2 * margin - 1
    before = -receptive_field(model, pixel=(0, 0)).rows[0]
    after = receptive_field(model, pixel=(last, last)).rows[1] - (smallest - 1)
    # How far a pixel sees depends on its place in its cell of the pooling grid: give up whole ones.
    return margin + -(-max(before, after, 0) // cell) * cell


class _Overlap:
    """How tiles of a network overlap along one axis.

    Attributes
    ----------
    margin : int
        Pixels that the network takes off each side.
    border : int
        Pixels that are not kept on each side of a tile.
    """

    def __init__(self, model: UNet, border: int) -> None:
        self.margin, self.border = _margin(model), border
        self._depth, self._padding = model.depth, model.padding
        self.cell = 2**model.depth

    def stride(self, side: int) -> int:
        """Give the distance to the next tile: on the pooling grid, and no pixel left out."""
        return (side - 2 * self.border) // self.cell * self.cell

    def number(self, side: int, length: int) -> int:
        """Count the tiles that cover a length."""
        return 1 + -(-(length - side) // self.stride(side)) if side < length else 1

    def works(self, side: int) -> bool:
        """Tell whether the network takes tiles of this side and something is kept of them."""
        return fits(side, depth=self._depth, padding=self._padding) and self.stride(side) > 0

    def check(self, side: int) -> None:
        """Raise a ValueError unless tiles of this side work."""
        if isinstance(side, bool) or not isinstance(side, int):
            raise ValueError(f"tile must be 'auto', None or a whole number of pixels, got {side!r}")
        if self.works(side):
            return
        smaller = next((s for s in range(side, 0, -1) if self.works(s)), None)
        larger = next(s for s in itertools.count(max(side, 1)) if self.works(s))
        nearest = f"{smaller} and {larger}" if smaller else f"{larger}, the smallest"
        raise ValueError(
            f"this network (depth {self._depth}, padding {self._padding!r}) cannot work in tiles "
            f"of {side} pixels, of which it keeps all but {self.border} on each side. Nearest "
            f"that work: {nearest}."
        )


def _least_work(lengths: list[int], overlap: _Overlap) -> list[int]:
    """Choose the sides of tiles that cover all with the fewest pixels computed twice."""
    limit = max(TILE_PIXELS, (6 * overlap.border) ** 2)  # deep networks need larger tiles
    choices = []
    for length in lengths:
        sides = range(length, 0, -overlap.cell)  # all of them fit if they are not too small
        kept = [side for side in sides if side == length or overlap.stride(side) > 0]
        # The smallest side of each number of tiles: later entries replace earlier ones.
        choices.append({overlap.number(side, length): side for side in kept}.items())
    _, height, width = min(
        (rows * height * columns * width, height, width)
        for (rows, height), (columns, width) in itertools.product(*choices)
        if height * width <= limit
    )
    return [height, width]


def _along(frame: _Frame, side: int, overlap: _Overlap) -> list[tuple[Span, Span]]:
    """Cut one axis: what each tile reads and which pixels it answers for."""
    last = frame.length - side
    starts = [*range(0, last, overlap.stride(side)), last] if last else [0]
    spans, done = [], 0
    for start in starts:
        unkept = overlap.margin if start == last else overlap.border
        stop = min(start + side - unkept - frame.before, frame.image)
        if stop > done:  # else the tile would answer for mirrored pixels only
            spans.append(((start - frame.before, start - frame.before + side), (done, stop)))
            done = stop
    return spans
