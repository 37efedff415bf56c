"""Figures of the book: functions that return a Matplotlib figure.

One visual language throughout, the arrows of the paper's figure 1: blue for a 3×3 convolution,
red for max pooling, green for the up-convolution, gray for copy (and crop), teal for 1×1.
Membranes are dark and cells light, as in the micrograph. Errors are orange where something was
missed and blue where something was invented.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from unet_tutorial.inference import Tile
from unet_tutorial.shapes import Layer, ShapeTrace, Stage
from unet_tutorial.training import TrainingResult

ARROWS = {
    "blue": "#2b6cb0",  # 3×3 convolution
    "red": "#c53030",  # 2×2 max pooling
    "green": "#2f855a",  # up-convolution
    "gray": "#8a8f98",  # copy and crop
    "teal": "#0f8b8d",  # 1×1 convolution
}
BLOCK, COPIED, UNBUILT, INK = "#90b8e0", "#ffffff", "#e9ecef", "#23272e"
MISSED, INVENTED = "#e07b00", "#2f6fde"
CONFUSED = "#a06bd0"
RUNGS = ("#1f4e8c", "#d1660f", "#6b4fa0", "#3d8f63", "#8a8f98")  # curves, told apart when gray

_SIGNED = LinearSegmentedColormap.from_list("signed", ["#c96a00", "#fbfbfb", "#1f4e8c"])

_LEGEND = (
    ("blue", "3×3 convolution, ReLU"),
    ("gray", "copy (and crop)"),
    ("red", "2×2 max pooling"),
    ("green", "up-convolution"),
    ("teal", "1×1 convolution"),
)


def apply_style() -> None:
    """Set the look of all figures of the book in this process.

    Examples
    --------
    >>> apply_style()
    """
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.facecolor": "white",
            "font.size": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.prop_cycle": plt.cycler(color=RUNGS),
            "image.cmap": "gray",
            "image.interpolation": "nearest",
            "legend.frameon": False,
        }
    )


def draw_u(trace: ShapeTrace, *, built: Sequence[str] | None = None, labels: bool = True) -> Figure:
    """Draw a network as the U of the paper's figure, to scale.

    The height of a block is the height of its map in pixels, its width the number of channels.
    Blue boxes are maps, white ones are maps that a skip connection carried over.

    Parameters
    ----------
    trace : ShapeTrace
        From `unet_tutorial.shapes.trace_shapes`.
    built : sequence of str, optional
        Names of the stages to fill in; the others are drawn pale. All, when left out.
    labels : bool
        Whether to write channels above and sizes beside the boxes.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    KeyError
        If ``built`` names a stage that the trace has not.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.shapes import trace_shapes
    >>> figure = draw_u(trace_shapes(UNet(1, 2, base_channels=8), (64, 64)))
    >>> len(figure.axes)
    1
    """
    for name in built or ():
        _ = trace[name]
    drawing = _UDrawing(trace, set(built) if built is not None else None, labels)
    return drawing.figure


def u_svg(trace: ShapeTrace, *, built: Sequence[str] | None = None, label: str) -> str:
    """Draw the same U as `draw_u`, as a small SVG text that is the same on every machine.

    Parameters
    ----------
    trace : ShapeTrace
        From `unet_tutorial.shapes.trace_shapes`.
    built : sequence of str, optional
        Names of the stages to fill in; all, when left out.
    label : str
        What the picture shows, in words.

    Returns
    -------
    str
        An ``<svg>`` element, 900 units wide.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.shapes import trace_shapes
    >>> svg = u_svg(trace_shapes(UNet(1, 2, base_channels=8), (64, 64)), label="a small U")
    >>> svg.startswith('<svg viewBox="0 0 900 '), svg.count("<rect")
    (True, 32)
    """
    drawing = _UDrawing(trace, set(built) if built is not None else None, labels=True)
    plt.close(drawing.figure)
    return drawing.svg(label)


@dataclass(frozen=True)
class _Box:
    """A rectangle of the drawing, in pixels of the image; the top of the U is y = 0."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def top(self) -> float:
        return self.bottom + self.height


class _UDrawing:
    """One drawing of a U: places every map, then draws boxes and arrows."""

    def __init__(self, trace: ShapeTrace, built: set[str] | None, labels: bool) -> None:
        self.trace, self.built, self.labels = trace, built, labels
        levels = max((stage.level or 0) for stage in trace) + 1
        tallest = trace.input[1]
        widest = max(stage.output[0] for stage in trace)
        self.unit = 0.42 * tallest / widest  # page width of one channel, in pixels of the image
        self.least = 0.012 * tallest  # so that one channel can be seen at all
        self.space = 0.16 * tallest
        self.between = 0.24 * tallest
        self.pad = 0.012 * tallest
        self.figure, self.axes = plt.subplots(figsize=(9.5, 4.9))
        # What was drawn, once more, for those who draw it elsewhere.
        self.boxes: list[tuple[_Box, str, str]] = []
        self.arrows: list[tuple[tuple[float, float], tuple[float, float], str]] = []
        self.words: list[tuple[float, float, str]] = []
        self._rows(levels)
        self._draw()
        self._legend()
        self.axes.set_aspect("equal")
        self.axes.axis("off")
        self.axes.autoscale_view()
        self.figure.tight_layout(pad=0.3)

    def _rows(self, levels: int) -> None:
        """Give every level a top edge: below the tallest map of the level above."""
        heights = dict.fromkeys(range(1, levels + 1), 0)
        heights[1] = self.trace.input[1]
        for stage in self.trace:
            level = self._level(stage)
            tallest = max(layer.output[1] for layer in stage.layers)
            heights[level] = max(heights[level], tallest)
        self.tops, top = {}, 0.0
        for level in sorted(heights):
            self.tops[level] = top
            top -= heights[level] + self.between
        self.levels = levels

    def _level(self, stage: Stage) -> int:
        if stage.name == "out":
            return 1
        level = stage.level or max((s.level or 0) for s in self.trace) + 1
        return level + 1 if stage.name.startswith("pool") else level

    def _draw(self) -> None:
        names = [stage.name for stage in self.trace]
        box = self._box(0.0, 1, self.trace.input, names[0])
        self._count(box, self.trace.input[0], names[0])
        self._note(box, self.trace.input, names[0], "left")
        outputs: dict[str, _Box] = {}
        for stage in self.trace:
            level = self._level(stage)
            if stage.name.startswith("pool"):
                middle = box.left + box.width / 2
                low = self._box(middle, level, stage.output, stage.name, centered=True)
                self._arrow((middle, box.bottom), (middle, low.top), "red", stage.name)
                self._note(low, stage.output, stage.name, "left", channels_too=True)
                box = low
            elif stage.name.startswith("up"):
                skip = f"skip{stage.level}"
                joined = self.trace[skip].output[0] if skip in names else 0
                carried = max(joined - stage.output[0], 0)  # none where it is added
                box = self._green(box, stage, level, carried)
            elif stage.name.startswith("skip"):
                source = outputs[f"enc{stage.level}"]
                y = box.bottom + box.height / 2
                self._arrow((source.right, y), (box.left, y), "gray", stage.name)
            else:
                for layer in stage.layers:
                    if not _arrow(layer):
                        continue
                    new = self._box(box.right + self.space, level, layer.output, stage.name)
                    y = (max(box.bottom, new.bottom) + min(box.top, new.top)) / 2
                    self._arrow((box.right, y), (new.left, y), _arrow(layer), stage.name)
                    self._count(new, layer.output[0], stage.name)
                    box = new
                if names[-1] == stage.name or stage.name != "dec1":  # as large as the output
                    self._note(box, stage.output, stage.name, "right")
                outputs[stage.name] = box

    def _green(self, below: _Box, stage: Stage, level: int, copied: int) -> _Box:
        """Draw an up-convolution, and in front of its map the channels that the skip carries."""
        left = below.right + self.space
        channels, *size = stage.output
        skip, copy = f"skip{stage.level}", (copied, size[0], size[1])
        carried = self._box(left, level, copy, skip, color=COPIED) if copied else None
        start = carried.right if carried else left
        box = self._box(start, level, stage.output, stage.name)
        foot = (box.left + box.width / 2, box.bottom)
        self._arrow((below.right, below.top), foot, "green", stage.name)
        self._note(box, stage.output, stage.name, "below")
        if not carried:
            self._count(box, channels, stage.name)
            return box
        both = _Box(carried.left, box.bottom, box.right - carried.left, box.height)
        self._count(both, f"{copied}+{channels}", skip, align="right")
        return both

    def _shown(self, name: str) -> bool:
        return self.built is None or name in self.built

    def _box(
        self,
        x: float,
        level: int,
        shape: tuple[int, int, int],
        name: str,
        *,
        color: str = BLOCK,
        centered: bool = False,
    ) -> _Box:
        width = max(shape[0] * self.unit, self.least)
        left = x - width / 2 if centered else x
        box = _Box(left, self.tops[level] - shape[1], width, shape[1])
        shown = self._shown(name)
        self.boxes.append((box, color if shown else UNBUILT, INK if shown else "#c5cad1"))
        self.axes.add_patch(
            Rectangle(
                (box.left, box.bottom),
                box.width,
                box.height,
                facecolor=color if shown else UNBUILT,
                edgecolor=INK if shown else "#c5cad1",
                linewidth=0.7,
                zorder=2,
            )
        )
        return box

    def _count(
        self,
        box: _Box,
        channels: int | str,
        name: str,
        align: Literal["center", "right"] = "center",
    ) -> None:
        """Write the number of channels above a box."""
        if self.labels and self._shown(name):
            x = box.right if align == "right" else box.left + box.width / 2
            self.words.append((x, box.top + 1.5 * self.pad, str(channels)))
            self.axes.text(
                x, box.top + self.pad, str(channels), ha=align, va="bottom", fontsize=7.5
            )

    def _note(
        self,
        box: _Box,
        shape: tuple[int, int, int],
        name: str,
        side: str,
        *,
        channels_too: bool = False,
    ) -> None:
        """Write height and width beside or below a box."""
        if not (self.labels and self._shown(name)):
            return
        channels, height, width = shape
        text = f"{height}²" if height == width else f"{height}×{width}"
        if channels_too:
            text = f"{channels} × {text}"
        places: dict[str, tuple[float, float, dict[str, str]]] = {
            "left": (box.left - self.pad, box.bottom, {"ha": "right", "va": "bottom"}),
            "right": (box.right + self.pad, box.bottom, {"ha": "left", "va": "bottom"}),
            "below": (box.right, box.bottom - self.pad, {"ha": "left", "va": "top"}),
        }
        if side == "right" and box.height < 0.14 * self.trace.input[1]:
            side = "below"  # beside a low box the text would lie on the arrows
        x, y, align = places[side]
        style: dict[str, Any] = {**align, "fontsize": 7, "color": "#555b64"}
        self.axes.text(x, y, text, **style)

    def _arrow(
        self, start: tuple[float, float], end: tuple[float, float], color: str, name: str
    ) -> None:
        self.arrows.append((start, end, ARROWS[color] if self._shown(name) else "#d5d9df"))
        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=8,
                linewidth=1.6,
                color=ARROWS[color] if self._shown(name) else "#d5d9df",
                shrinkA=0,
                shrinkB=0,
                zorder=3,
            )
        )

    def svg(self, label: str) -> str:
        """Write boxes, arrows and channel counts as SVG."""
        right = max(box.right for box, _, _ in self.boxes)
        bottom = min(box.bottom for box, _, _ in self.boxes)
        scale = 880 / right

        def at(x: float, y: float) -> tuple[str, str]:
            return f"{10 + x * scale:.0f}", f"{16 - y * scale:.0f}"

        parts = []
        for box, fill, edge in self.boxes:
            x, y = at(box.left, box.top)
            width, height = max(1, round(box.width * scale)), max(1, round(box.height * scale))
            parts.append(
                f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" '
                f'stroke="{edge}"/>'
            )
        for start, end, color in self.arrows:
            (x1, y1), (x2, y2) = at(*start), at(*end)
            parts.append(f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{color}" stroke-width="2"/>')
        for across, up, word in self.words:
            left, top = at(across, up)
            parts.append(
                f'<text x="{left}" y="{top}" font-size="11" text-anchor="middle" '
                f'fill="currentColor">{word}</text>'
            )
        tall = round(16 - bottom * scale + 6)
        return (
            f'<svg viewBox="0 0 900 {tall}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
        )

    def _legend(self) -> None:
        handles = [
            plt.Line2D([], [], color=ARROWS[color], linewidth=2, label=text)
            for color, text in _LEGEND
        ]
        self.figure.legend(handles=handles, ncols=5, loc="lower center", fontsize=8)


def _arrow(layer: Layer) -> str:
    """Name the color of a layer's arrow; empty for layers without one (ReLU, normalization)."""
    if layer.operation == "copy":
        return ""
    if layer.operation.endswith("convolution") and layer.kernel == 3:
        return "blue"
    return "teal" if layer.operation == "1×1 convolution" else ""


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Show a gray image (H, W) or (1, H, W) or a color image (3, H, W) without axes.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    image : numpy.ndarray
        Values from 0 (black) to 1 (white).
    title : str
        Written above.

    Examples
    --------
    >>> figure, axes = plt.subplots()
    >>> show_image(axes, np.zeros((1, 8, 8)), "dark")
    """
    picture = np.asarray(image, dtype=float)
    if picture.ndim == 3:
        picture = picture[0] if picture.shape[0] == 1 else np.moveaxis(picture, 0, -1)
    axes.imshow(picture, vmin=0, vmax=1)
    axes.set_title(title)
    axes.axis("off")


def error_overlay(image: np.ndarray, prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Color the wrong pixels of a prediction over the image.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) or (1, H, W), 0 to 1.
    prediction, target : numpy.ndarray
        (H, W): class indices, or true where there is membrane.

    Returns
    -------
    numpy.ndarray
        (H, W, 3), 0 to 1: the image in pale gray, missed orange, invented blue, one class taken
        for another (not for the background, 0) violet.

    Examples
    --------
    >>> found, truth = np.array([[True, False]]), np.array([[False, False]])
    >>> overlay = error_overlay(np.ones((1, 2)), found, truth)
    >>> bool(overlay[0, 0, 2] > overlay[0, 0, 0])
    True
    """
    gray = np.asarray(image, dtype=float).reshape(target.shape)
    picture = np.repeat((0.35 + 0.65 * gray)[..., None], 3, axis=-1)
    found, truth = np.asarray(prediction), np.asarray(target)
    picture[(truth > 0) & (found > 0) & (truth != found)] = to_rgb(CONFUSED)
    picture[(truth > 0) & (found == 0)] = to_rgb(MISSED)
    picture[(found > 0) & (truth == 0)] = to_rgb(INVENTED)
    return picture


def plot_predictions(
    image: np.ndarray,
    target: np.ndarray,
    probabilities: Mapping[str, np.ndarray],
    *,
    errors: bool = True,
) -> Figure:
    """Set what several networks predict for one image side by side.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) or (H, W), 0 to 1.
    target : numpy.ndarray
        (H, W) class indices, 1 = membrane.
    probabilities : mapping of str to numpy.ndarray
        By network: membrane probability (H, W), 0 to 1.
    errors : bool
        Whether to add a row with the wrong pixels at probability 0.5 over the image.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_predictions(
    ...     np.zeros((8, 8)), np.zeros((8, 8), int), {"undecided": np.full((8, 8), 0.5)}
    ... )
    >>> len(figure.axes)
    4
    """
    rows, columns = (2 if errors else 1), len(probabilities) + 1
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.85 * rows), squeeze=False)
    truth = np.asarray(target) == 1
    show_image(axes[0, 0], image, "micrograph")
    if errors:
        show_image(axes[1, 0], 1.0 - truth, "label")
    for column, (name, probability) in enumerate(probabilities.items(), start=1):
        show_image(axes[0, column], 1.0 - np.asarray(probability, float), name)
        if errors:
            guess = np.asarray(probability, float) > 0.5
            axes[1, column].imshow(error_overlay(image, guess, truth))
            axes[1, column].set_title(f"{np.mean(guess != truth):.1%} wrong")
            axes[1, column].axis("off")
    if errors:
        handles = [
            Rectangle((0, 0), 1, 1, color=MISSED, label="missed membrane"),
            Rectangle((0, 0), 1, 1, color=INVENTED, label="invented membrane"),
        ]
        figure.legend(handles=handles, ncols=2, loc="lower center")
    figure.tight_layout(rect=(0, 0.05 if errors else 0, 1, 1), h_pad=1.0)
    return figure


def plot_training(results: Mapping[str, TrainingResult]) -> Figure:
    """Draw the loss of every step and the held-out pixel error of several trainings.

    Parameters
    ----------
    results : mapping of str to TrainingResult
        By the name to write in the legend.

    Returns
    -------
    matplotlib.figure.Figure
        Left the loss, smoothed over 15 steps; right the pixel error wherever it was taken.

    Examples
    --------
    >>> figure = plot_training({})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['training loss', 'held-out pixel error']
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.0))
    for name, result in results.items():
        window = min(15, max(1, result.steps_done))
        smooth = np.convolve(result.losses, np.ones(window) / window, mode="valid")
        left.plot(np.arange(len(smooth)) + window, smooth, label=name)
        steps = [scores.step for scores in result.validations]
        right.plot(steps, [s.pixel_error for s in result.validations], marker="o", markersize=4)
    left.set(xlabel="step", ylabel="training loss")
    right.set(xlabel="step", ylabel="held-out pixel error")
    right.set_ylim(bottom=0)
    if results:
        left.legend()
    figure.tight_layout()
    return figure


def plot_speeds(speeds: Mapping[str, Mapping[str, float]], unit: str = "crops/s") -> Figure:
    """Draw speeds as bars, one group a name, the first name on top.

    Parameters
    ----------
    speeds : mapping of str to mapping of str to float
        By the name in the legend: by the name of the bar, its length. Bars may be missing.
    unit : str
        What is written below.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_speeds({"here": {"plain loop": 5.0, "fit": 12.0}, "there": {"fit": 14.0}})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['plain loop', 'fit']
    """
    names = list(dict.fromkeys(name for bars in speeds.values() for name in bars))
    height = 0.8 / max(1, len(speeds))
    figure, axes = plt.subplots(figsize=(7.5, 0.8 + 0.22 * len(names) * len(speeds)))
    for number, (legend, bars) in enumerate(speeds.items()):
        places = [names.index(name) - 0.4 + height * (number + 0.5) for name in bars]
        drawn = axes.barh(places, list(bars.values()), height=0.9 * height, label=legend)
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8.5)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=unit)
    axes.invert_yaxis()
    axes.legend(loc="upper right")
    figure.tight_layout()
    return figure


def plot_over_seconds(
    curves: Mapping[str, Sequence[tuple[float, float]]], what: str = "held-out pixel error"
) -> Figure:
    """Draw a score against the seconds of training that it took.

    Parameters
    ----------
    curves : mapping of str to sequence of (float, float)
        By the name in the legend: seconds and score.
    what : str
        The score.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_over_seconds({"fit": [(5.0, 0.12), (10.0, 0.09)]})
    >>> figure.axes[0].get_xlabel()
    'seconds of training'
    """
    figure, axes = plt.subplots(figsize=(5.5, 3.0))
    for name, points in curves.items():
        axes.plot(*np.array(points).reshape(-1, 2).T, marker="o", markersize=4, label=name)
    axes.set(xlabel="seconds of training", ylabel=what)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    return figure


def plot_patches(
    image: np.ndarray, places: Mapping[str, tuple[int, int]], sizes: Sequence[int]
) -> Figure:
    """Enlarge windows of growing size around some pixels: what a network of that sight is shown.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) or (H, W), 0 to 1; continued by mirroring where a window leaves it.
    places : mapping of str to (int, int)
        By the name to write in front of the row: row and column of the pixel.
    sizes : sequence of int
        Sides of the windows in pixels, odd, one column of the figure each.

    Returns
    -------
    matplotlib.figure.Figure
        The pixel in question has an orange frame; every window is stretched to the same size.

    Raises
    ------
    ValueError
        If a size is even: such a window has no middle.

    Examples
    --------
    >>> figure = plot_patches(np.zeros((40, 40)), {"A": (20, 20)}, (9, 33))
    >>> len(figure.axes)
    2
    """
    even = [size for size in sizes if size % 2 == 0]
    if even:
        raise ValueError(f"a window needs a middle pixel: its size must be odd, got {even}")
    gray: np.ndarray = np.asarray(image, dtype=float).reshape(image.shape[-2:])
    reach = max(sizes) // 2
    wide = np.pad(gray, reach, mode="reflect")
    rows, columns = len(places), len(sizes)
    if columns == 1:  # side by side, not one above the other
        rows, columns = 1, len(places)
    size_in_inches = 2.2 * columns, 2.35 * rows
    figure, axes = plt.subplots(rows, columns, figsize=size_in_inches, squeeze=False)
    for row, (name, (y, x)) in enumerate(places.items()):
        for column, size in enumerate(sizes):
            half = size // 2
            window = (
                slice(y + reach - half, y + reach + half + 1),
                slice(x + reach - half, x + reach + half + 1),
            )
            panel = axes.flat[row * len(sizes) + column]
            panel.imshow(wide[window], vmin=0, vmax=1)
            frame = max(1.0, size / 20)  # a single pixel of a large window would not be seen
            corner = half - frame / 2, half - frame / 2
            panel.add_patch(
                Rectangle(corner, frame, frame, fill=False, edgecolor=MISSED, linewidth=2)
            )
            panel.set(xticks=[], yticks=[])
            if row == 0 or len(sizes) == 1:
                panel.set_title(f"{size} × {size}")
        first = axes.flat[row * len(sizes)]
        first.set_ylabel(name, rotation=0, labelpad=14, va="center", fontsize=13)
    figure.tight_layout(pad=0.4)
    return figure


def plot_fields(image: np.ndarray, pixel: tuple[int, int], fields: Mapping[str, int]) -> Figure:
    """Draw on a micrograph how much of it one value of each stage can see.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) or (H, W), 0 to 1.
    pixel : (int, int)
        Row and column in the middle of all squares.
    fields : mapping of str to int
        By stage: side of the receptive field in pixels.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_fields(np.zeros((64, 64)), (32, 32), {"enc1": 5, "enc2": 14})
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['enc1: 5', 'enc2: 14']
    """
    gray: np.ndarray = np.asarray(image, dtype=float).reshape(image.shape[-2:])
    widest = max(fields.values())
    figure, axes = plt.subplots(figsize=(5.2, 5.2))
    axes.imshow(gray, vmin=0, vmax=1)
    row, column = pixel
    for (name, side), color in zip(fields.items(), _endless(RUNGS), strict=False):
        corner = column - side / 2, row - side / 2
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=2.4))
        axes.text(
            corner[0] + side,
            corner[1] + side,
            f"{name}: {side}",
            ha="left",
            va="top",
            fontsize=8.5,
            color="white",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
        )
    room = widest * 0.75
    axes.set_xlim(max(column - room, -0.5), min(column + room, gray.shape[1] - 0.5))
    axes.set_ylim(min(row + room, gray.shape[0] - 0.5), max(row - room, -0.5))
    axes.axis("off")
    figure.tight_layout(pad=0.2)
    return figure


def plot_costs(trace: ShapeTrace) -> Figure:
    """Draw what each stage has of the parameters, the arithmetic and the memory: three bars.

    Parameters
    ----------
    trace : ShapeTrace
        From `unet_tutorial.shapes.trace_shapes`. Up-convolution and copied map count with the
        double convolution that follows them.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.shapes import trace_shapes
    >>> figure = plot_costs(trace_shapes(UNet(1, 2, base_channels=4), (64, 64)))
    >>> [axes.get_title() for axes in figure.axes]
    ['parameters', 'multiply-adds', 'memory of the maps']
    """
    shares = trace.shares()
    names = list(shares)
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.1), sharey=True)
    titles = ("parameters", "multiply-adds", "memory of the maps")
    for column, (panel, title) in enumerate(zip(axes, titles, strict=True)):
        values = [100 * shares[name][column] for name in names]
        bars = panel.barh(names, values, color=BLOCK, edgecolor=INK, linewidth=0.6)
        panel.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=8)
        panel.set(title=title, xlim=(0, 1.22 * max(values)), xticks=[])
        panel.spines["bottom"].set_visible(False)
        panel.tick_params(left=False)
    axes[0].invert_yaxis()
    figure.tight_layout(pad=0.4)
    return figure


def plot_error_by_distance(
    limits: Sequence[float], curves: Mapping[str, Sequence[float]], *, title: str = ""
) -> Figure:
    """Draw the pixel error against the distance from the nearest membrane edge.

    Parameters
    ----------
    limits : sequence of float
        Upper limits of the distances in pixels; the last may be infinite.
    curves : mapping of str to sequence of float
        By the name to write in the legend: the error of each range, 0 to 1.
    title : str
        Written above.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_error_by_distance([1, 2, np.inf], {"blurred": [0.4, 0.2, 0.0]})
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['1', '2', 'more']
    """
    figure, axes = plt.subplots(figsize=(7.0, 3.4))
    for (name, errors), marker in zip(curves.items(), _endless("osD^vP*X"), strict=False):
        axes.plot(range(len(limits)), errors, marker=marker, markersize=5, label=name)
    axes.set_xticks(range(len(limits)))
    words = ["more" if np.isinf(limit) else f"{limit:g}" for limit in limits]
    starts = [0, *limits[:-1]]
    for index in range(len(words)):  # a range of several pixels says both its ends
        if words[index] != "more" and limits[index] - starts[index] > 1:
            words[index] = f"{starts[index] + 1:g}–{words[index]}"
    axes.set_xticklabels(words)
    axes.axhline(0.5, color="#b8bec7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="distance from the nearest edge (pixels)", ylabel="pixel error", title=title)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8.5)
    figure.tight_layout()
    return figure


def plot_images(
    images: Mapping[str, np.ndarray], *, columns: int = 4, ranges: bool = False, side: float = 2.4
) -> Figure:
    """Set gray, signed or color pictures side by side.

    Parameters
    ----------
    images : mapping of str to numpy.ndarray
        By title: (H, W) gray, or (H, W, 3) color from 0 to 1.
    columns : int
        Pictures in a row.
    ranges : bool
        Stretch each gray picture to its own darkest and brightest value and write them below;
        else black is 0 and white 1.
    side : float
        Width of a picture in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_images({"a": np.zeros((4, 4)), "b": np.ones((8, 8, 3))})
    >>> [axes.get_title() for axes in figure.axes]
    ['a', 'b']
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = side * columns, (side + (0.5 if ranges else 0.3)) * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for panel in axes.flat[len(images) :]:
        panel.remove()
    for panel, (title, picture) in zip(axes.flat, images.items(), strict=False):
        picture = np.asarray(picture, dtype=float)
        limits = (picture.min(), picture.max()) if ranges else (0, 1)
        panel.imshow(picture, vmin=limits[0], vmax=limits[1])
        panel.set(title=title, xticks=[], yticks=[])
        for spine in panel.spines.values():
            spine.set_visible(False)
        if ranges and picture.ndim == 2:
            panel.set_xlabel(f"{limits[0]:.2g} to {limits[1]:.2g}", fontsize=8.5)
    figure.tight_layout(pad=0.5)
    return figure


def plot_grid(
    arrays: Mapping[str, np.ndarray], *, numbers: str = "{:g}", marks: Any = (), cell: float = 0.42
) -> Figure:
    """Draw small arrays as squares with their numbers in them.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        By title: (H, W), at most some ten rows and columns.
    numbers : str
        How to write a number.
    marks : mapping of str to sequence of (int, int)
        By title: row and column of the squares to frame.
    cell : float
        Side of a square in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_grid({"x": np.eye(2)}, marks={"x": [(0, 0)]})
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '0', '0', '1']
    """
    marks = dict(marks)
    widths = [array.shape[1] for array in arrays.values()]
    heights = [array.shape[0] for array in arrays.values()]
    figure, axes = plt.subplots(
        1,
        len(arrays),
        figsize=(cell * (sum(widths) + 1.2 * len(widths)), cell * max(heights) + 0.5),
        width_ratios=widths,
        squeeze=False,
    )
    for panel, (title, array) in zip(axes.flat, arrays.items(), strict=True):
        values = np.asarray(array, dtype=float)
        largest = np.abs(values).max() or 1.0
        # Signed values: blue and orange with white in the middle; others from white to blue.
        shade = 0.5 + 0.5 * values / largest if values.min() < 0 else 0.5 + 0.4 * values / largest
        panel.imshow(shade, cmap=_SIGNED, vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(values):
            dark = abs(shade[row, column] - 0.5) > 0.36
            panel.text(
                column,
                row,
                numbers.format(value).replace("-", "\N{MINUS SIGN}"),
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if dark else INK,
            )
        for row, column in marks.get(title, ()):
            corner = column - 0.5, row - 0.5
            panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ARROWS["red"], lw=2.2))
        panel.set(title=title, xticks=[], yticks=[])
        panel.set_anchor("N")
    figure.tight_layout(pad=0.4)
    return figure


def plot_weights(image: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Figure:
    """Set an image, its label and the weight of each pixel side by side.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) or (H, W), 0 to 1.
    labels : numpy.ndarray
        (H, W), drawn white where it is not 0.
    weights : numpy.ndarray
        (H, W), 0 or more; drawn with its scale.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_weights(np.zeros((8, 8)), np.eye(8), np.ones((8, 8)))
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['image', 'label', 'weight']
    """
    figure, axes = plt.subplots(1, 3, figsize=(8.2, 2.7), width_ratios=(1, 1, 1.16))
    show_image(axes[0], image, "image")
    show_image(axes[1], np.asarray(labels) > 0, "label")
    drawn = axes[2].imshow(weights, cmap="cividis", vmin=0)
    axes[2].set_title("weight")
    axes[2].axis("off")
    figure.colorbar(drawn, ax=axes[2], fraction=0.046, pad=0.03)
    figure.tight_layout(pad=0.5)
    return figure


def plot_tiles(image: np.ndarray, tiles: Sequence[Tile]) -> Figure:
    """Draw each tile over the image with its mirrored surroundings, and what the tile answers for.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) or (H, W), 0 to 1.
    tiles : sequence of Tile
        From `unet_tutorial.inference.tile_plan`; four or fewer are easy to see.

    Returns
    -------
    matplotlib.figure.Figure
        A panel a tile. Beyond the image its mirrored surroundings are pale. Blue, dashed: what the
        network reads. Orange: the pixels that are kept.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.inference import tile_plan
    >>> model = UNet(1, 2, base_channels=1, depth=1, padding="valid")
    >>> len(plot_tiles(np.zeros((32, 32)), tile_plan(model, (32, 32), 36)).axes)
    4
    """
    height, width = np.shape(image)[-2:]
    pixels = np.asarray(image, float).reshape(height, width)
    spans = [span for tile in tiles for span in (tile.input_rows, tile.input_columns)]
    before = max(0, -min(start for start, _ in spans))
    after = max(
        max(tile.input_rows[1] - height, tile.input_columns[1] - width, 0) for tile in tiles
    )
    around = np.pad(pixels, (before, after), mode="reflect" if min(pixels.shape) > 1 else "edge")
    pale = 0.6 + 0.4 * around
    pale[before : before + height, before : before + width] = pixels
    figure, axes = plt.subplots(1, len(tiles), figsize=(2.1 * len(tiles), 2.4), squeeze=False)
    ends = (-before - 0.5, width + after - 0.5, height + after - 0.5, -before - 0.5)
    for number, (panel, tile) in enumerate(zip(axes.flat, tiles, strict=True), start=1):
        show_image(panel, pale, f"tile {number}")
        panel.images[0].set_extent(ends)
        frames = (
            (tile.input_rows, tile.input_columns, INVENTED, "--"),
            (tile.output_rows, tile.output_columns, MISSED, "-"),
        )
        for rows, columns, color, line in frames:
            corner, size = (columns[0] - 0.5, rows[0] - 0.5), np.subtract(*columns[::-1])
            panel.add_patch(
                Rectangle(
                    corner,
                    float(size),
                    rows[1] - rows[0],
                    fill=False,
                    edgecolor=color,
                    linewidth=2.2,
                    linestyle=line,
                )
            )
    figure.tight_layout(pad=0.5)
    return figure


def plot_by_number(
    curves: Mapping[str, Mapping[int, tuple[float, float]]], *, xlabel: str, ylabel: str
) -> Figure:
    """Draw means with their spread against a number, such as that of the training images.

    Parameters
    ----------
    curves : mapping
        By the name to write in the legend, by number: mean and spread.
    xlabel, ylabel : str
        Written at the axes.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> figure = plot_by_number({"a": {1: (0.2, 0.1), 3: (0.1, 0.0)}}, xlabel="n", ylabel="error")
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['1', '3']
    """
    figure, axes = plt.subplots(figsize=(6.0, 3.2))
    numbers = sorted({number for curve in curves.values() for number in curve})
    for shift, ((name, curve), marker) in enumerate(
        zip(curves.items(), _endless("osD^"), strict=False)
    ):
        places = [numbers.index(number) + 0.06 * shift for number in curve]
        means, spreads = zip(*curve.values(), strict=True)
        # Where there are more curves than colors, those that come round again are dashed.
        line = "-" if shift < len(plt.rcParams["axes.prop_cycle"]) else "--"
        style: dict[str, Any] = {"marker": marker, "markersize": 5, "capsize": 3, "linestyle": line}
        axes.errorbar(places, means, spreads, label=name, **style)
    axes.set_xticks(range(len(numbers)), [f"{number}" for number in numbers])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8.5)
    figure.tight_layout()
    return figure


def _endless(values: Sequence[str]) -> Iterator[str]:
    return itertools.cycle(values)
