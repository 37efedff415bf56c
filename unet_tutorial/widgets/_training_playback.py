"""A training, played back: what the network predicts, step by step, beside loss and score."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets

from unet_tutorial._pictures import data_url, gray_bytes, jpeg_url, quantize, shrink
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.metrics import dice, pixel_error
from unet_tutorial.training import TrainingResult
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import captioned, html_table, text_table

FRAMES = 12
SIDE = 192
LARGEST = 250_000  # bytes of all frames together
SMOOTH = 15  # steps, as in the book's figures
POINTS = 160  # of the drawn loss curve
HEAD = ("step", "loss", "pixel error", "Dice")


class TrainingPlayback(BookWidget):
    """Predictions over the steps of one training, to play or to move through by hand.

    Attributes
    ----------
    frame : int
        The snapshot that is shown, counted from 0.
    frames : list of dict
        For each snapshot its ``step``; the ``loss``, mean of the last 15 steps; ``error`` and
        ``dice`` of this one image; the ``picture``, membranes dark; the ``marks``, where the
        markers stand in the two charts.
    charts : list of str
        Loss and pixel error over the steps, as SVG.
    image, label : str
        The first held-out image and its label.

    See Also
    --------
    unet_tutorial.plots.plot_training : The curves of several trainings, as a figure.
    """

    front_end = "training-playback"
    scripts = ("core.js", "training-playback.js")

    frame = traitlets.Int(0, min=0).tag(sync=True)
    frames = traitlets.List(traitlets.Dict()).tag(sync=True)
    charts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    image = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)

    @classmethod
    def of(cls, result: TrainingResult, data: SegmentationData) -> TrainingPlayback:
        """Play back a training that kept snapshots.

        Parameters
        ----------
        result : TrainingResult
            From `unet_tutorial.training.fit`, run with ``snapshot_every``. Of more than 12
            snapshots 12 are shown, evenly spaced, with the first and the last.
        data : SegmentationData
            What it was trained on: the snapshots show its first held-out image.

        Returns
        -------
        TrainingPlayback
            At the last snapshot.

        Raises
        ------
        ValueError
            If there is no snapshot, or the data are others.

        Examples
        --------
        >>> from unet_tutorial import UNet
        >>> from unet_tutorial.datasets import load
        >>> from unet_tutorial.training import TrainingConfig, fit
        >>> data = load("membranes", n_images=4, size=64)
        membranes: ...
        >>> config = TrainingConfig(steps=4, batch_size=1, crop_size=32, snapshot_every=2)
        >>> result = fit(UNet(1, 2, base_channels=2, depth=2), data, config, report=None)
        >>> playback = TrainingPlayback.of(result, data)
        >>> [frame["step"] for frame in playback.frames], playback.frame
        ([2, 4], 1)
        """
        losses = [loss for loss in result.losses if np.isfinite(loss)]
        if not result.snapshots or not losses:
            raise ValueError(
                "this training kept no snapshots, so there is nothing to play: train again with "
                "snapshot_every=... in its settings (a tenth of the steps is a good number), on "
                "data with a held-out image"
            )
        held_out = data.validation
        shape = result.snapshots[0][1].shape[-2:]
        if not len(held_out) or held_out.labels[0].shape != shape:
            found = held_out.labels[0].shape if len(held_out) else "missing"
            raise ValueError(
                f"the snapshots show a held-out image of shape {shape}, but the first held-out "
                f"image of these data is {found}: give the data of this training"
            )
        truth = np.asarray(held_out.labels[0])
        snapshots = [result.snapshots[k] for k in _evenly(len(result.snapshots), FRAMES)]
        smooth = [float(np.mean(losses[max(0, n - SMOOTH) : n])) for n in range(1, len(losses) + 1)]
        frames = [_frame(step, found, truth, smooth) for step, found in snapshots]
        for frame, picture in zip(
            frames, _pictures([found for _, found in snapshots]), strict=True
        ):
            frame["picture"] = picture
        here = [(frame["step"], frame["error"]) for frame in frames]
        curve = [(k + 1, smooth[k]) for k in _evenly(len(smooth), POINTS)]
        title, others = "pixel error", []
        if len(held_out) > 1 and result.validations:
            title = f"pixel error; dashed: of all {len(held_out)} held-out images"
            others = [(scores.step, scores.pixel_error) for scores in result.validations]
        steps = max(len(losses), frames[-1]["step"])
        charts = [
            _Chart("training loss, mean of 15 steps", curve, [], steps),
            _Chart(title, here, others, steps),
        ]
        for frame in frames:
            frame["marks"] = [
                charts[0].at(frame["step"], frame["loss"]),
                charts[1].at(frame["step"], frame["error"]),
            ]
        return cls(
            frame=len(frames) - 1,
            frames=frames,
            charts=[
                chart.svg(mark) for chart, mark in zip(charts, frames[-1]["marks"], strict=True)
            ],
            image=jpeg_url(gray_bytes(held_out.images[0], SIDE), quality=75),
            label=data_url(_shade(truth, held_out.num_classes), side=SIDE),
        )

    @traitlets.validate("frame")
    def _stored(self, proposal: Any) -> int:
        if proposal["value"] >= max(len(self.frames), 1):
            raise ValueError(
                f"frame must be below {len(self.frames)}, the number of stored snapshots, got "
                f"{proposal['value']}"
            )
        return int(proposal["value"])

    def rows(self) -> list[tuple[str, ...]]:
        """Return step, loss, pixel error and Dice of each snapshot."""
        return [
            (
                str(frame["step"]),
                f"{frame['loss']:.3f}",
                f"{frame['error']:.3f}",
                f"{frame['dice']:.3f}",
            )
            for frame in self.frames
        ]

    def table(self) -> str:
        """Return the snapshots as text."""
        return text_table([HEAD, *self.rows()], align=">")

    def still(self) -> str:
        """Return the pictures of all snapshots, the charts and a table, as HTML."""
        pictures = [
            captioned(self.image, "image", "The held-out micrograph."),
            captioned(self.label, "label", "Its label, membranes dark."),
        ]
        for frame in self.frames:
            words = f"step {frame['step']}"
            alternative = f"Prediction after {words}: pixel error {frame['error']:.3f}."
            pictures.append(captioned(frame["picture"], words, alternative))
        charts = "\n".join(f'<div style="max-width:24rem">{chart}</div>' for chart in self.charts)
        return (
            '<figure style="margin:0"><div style="display:grid;gap:0.5rem;'
            'grid-template-columns:repeat(auto-fill,minmax(5.5rem,1fr))">\n'
            + "\n".join(pictures)
            + f"\n</div>\n{charts}\n<figcaption>One held-out image, and what the network made of "
            "it as its training went on.</figcaption></figure>\n"
            + html_table("The steps that are shown", HEAD, self.rows())
        )


class _Chart:
    """A curve over the steps, perhaps a dashed one too, and a marker: in units of the drawing."""

    def __init__(
        self,
        title: str,
        points: Sequence[tuple[float, float]],
        dashed: Sequence[tuple[float, float]],
        steps: int,
    ) -> None:
        self.title, self.points, self.dashed, self.steps = title, points, dashed, steps
        self.top = max(value for _, value in [*points, *dashed]) or 1.0

    def at(self, step: float, value: float) -> list[float]:
        """Place a value; 0 lies on the lower edge, step 0 on the left one."""
        x = 5 + 290 * step / self.steps
        return [round(x, 1), round(110 - 85 * value / self.top, 1)]

    def svg(self, mark: Sequence[float]) -> str:
        """Draw all, with the marker here."""
        paths = ""
        for points, dash in ((self.points, ""), (self.dashed, ' stroke-dasharray="5 4"')):
            if points:
                places = "L".join("{} {}".format(*self.at(*point)) for point in points)
                paths += f'<path d="M{places}" fill="none" stroke="currentColor"{dash}/>'
        (_, first), (_, last) = self.points[0], self.points[-1]
        words = (
            f"{self.title}: from {first:.3f} to {last:.3f} over {self.steps} steps, axis from 0 "
            f"to {self.top:.3f}"
        )
        return (
            f'<svg viewBox="0 0 300 125" role="img" aria-label="{html.escape(words)}" '
            'font-size="11" fill="currentColor">'
            '<path d="M5 25V110H295" fill="none" stroke="currentColor" opacity="0.4"/>'
            f'<text x="5" y="10">{html.escape(self.title)}</text><text x="8" y="22">'
            f'{self.top:.2f}</text><text x="295" y="122" text-anchor="end">step {self.steps}'
            f'</text>{paths}<circle cx="{mark[0]}" cy="{mark[1]}" r="5" fill="#d1460f"/></svg>'
        )


def _evenly(count: int, most: int) -> list[int]:
    """Choose places from a list, evenly, with both ends."""
    return sorted({round(k) for k in np.linspace(0, count - 1, min(count, most))})


def _frame(
    step: int, probabilities: np.ndarray, truth: np.ndarray, smooth: Sequence[float]
) -> dict[str, Any]:
    """Score a snapshot."""
    guess = np.asarray(probabilities).argmax(axis=0)
    return {
        "step": int(step),
        "loss": round(smooth[min(max(step, 1), len(smooth)) - 1], 3),
        "error": round(pixel_error(guess, truth), 3),
        "dice": round(dice(guess == 1, truth == 1), 3),
    }


def _shade(classes: np.ndarray, count: int) -> np.ndarray:
    """Turn class indices into grays, the first class white, the last black."""
    return 1 - classes.astype(np.float32) / max(count - 1, 1)


def _pictures(snapshots: Sequence[np.ndarray]) -> list[str]:
    """Draw the snapshots, as well as the space for all of them allows."""
    shades = []
    for found in snapshots:
        count = len(found)
        classes = found[1] if count == 2 else found.argmax(axis=0)
        shade = 1 - classes.astype(np.float32) if count == 2 else _shade(classes, count)
        shades.append(quantize(shrink(shade, SIDE), levels=256))
    for quality in (80, 60, 40, 20):
        addresses = [jpeg_url(shade, quality) for shade in shades]
        if sum(map(len, addresses)) <= LARGEST:
            break
    return addresses
