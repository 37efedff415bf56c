"""One image through several networks: wipe between any two of them, and see where they err."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets

from unet_tutorial._pictures import data_url, overlay_url, quantize
from unet_tutorial.plots import INVENTED, MISSED, error_overlay
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import captioned, html_table, text_table

LONGEST = 384  # pixels; every pixel is kept, so a larger image would make a heavy page
STILL_SIDE = 128
GRAYS = 32  # brightness steps of a stored map
HEAD = ("network", "wrong", "missed", "invented")


class SkipComparison(BookWidget):
    """What several networks predict for the same image, two at a time, with a border to move.

    Attributes
    ----------
    left, right : str
        Names of the networks shown left and right of the border.
    wipe : int
        Place of the border in percent of the width: 0 shows only ``right``, 100 only ``left``.
    errors : bool
        Whether the wrong pixels are shown over the pale image, instead of the maps.
    networks : list of dict
        For each network its ``name``; its ``map``, a gray picture with membranes dark; ``wrong``,
        a picture of the wrong pixels at probability 0.5, transparent elsewhere; the ``shares`` of
        all pixels that are wrong, missed membrane and invented membrane, as text.
    image, label : str
        Micrograph and label as pictures of the same size, membranes dark.
    size : list of int
        Height and width in pixels.

    See Also
    --------
    unet_tutorial.plots.plot_predictions : The same as a figure. Used in chapter 4.
    """

    front_end = "skip-comparison"
    scripts = ("core.js", "skip-comparison.js")

    left = traitlets.Unicode("").tag(sync=True)
    right = traitlets.Unicode("").tag(sync=True)
    wipe = traitlets.Int(50, min=0, max=100).tag(sync=True)
    errors = traitlets.Bool(False).tag(sync=True)
    networks = traitlets.List(traitlets.Dict()).tag(sync=True)
    image = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    _stills = traitlets.Dict()  # pictures for a page without script; the front end makes its own

    @classmethod
    def of(
        cls, image: np.ndarray, label: np.ndarray, predictions: Mapping[str, np.ndarray]
    ) -> SkipComparison:
        """Compare predictions for one image.

        Parameters
        ----------
        image : numpy.ndarray
            (H, W) or (1, H, W), 0 to 1; at most 384 pixels high and wide.
        label : numpy.ndarray
            (H, W) class indices, 1 = membrane.
        predictions : mapping of str to numpy.ndarray
            By name of the network, two or more: membrane probability (H, W), 0 to 1. The first
            begins on the left, the last on the right.

        Returns
        -------
        SkipComparison

        Raises
        ------
        ValueError
            If there are fewer than two predictions, shapes differ, the image is larger, or a
            probability is none.

        Examples
        --------
        >>> label = np.zeros((16, 16), int)
        >>> label[:, 8] = 1
        >>> guesses = {"concat": 0.9 * label, "none": np.full((16, 16), 0.2)}
        >>> print(SkipComparison.of(np.ones((16, 16)), label, guesses).table())
        network  wrong  missed  invented
        concat   0.0%   0.0%    0.0%
        none     6.2%   6.2%    0.0%
        """
        if len(predictions) < 2:
            raise ValueError(
                f"got {len(predictions)} prediction(s): a comparison needs two or more, such as "
                '{"concat": ..., "none": ...}'
            )
        truth = np.asarray(label) == 1
        if truth.ndim != 2 or 0 in truth.shape or max(truth.shape) > LONGEST:
            raise ValueError(
                f"expected a label of shape (H, W) with at most {LONGEST} pixels on each side, got "
                f"{truth.shape}: take a part of image, label and predictions, such as "
                "[..., :256, :256]"
            )
        gray = _gray(image, truth.shape)
        networks = [
            _network(str(name), np.asarray(found), truth) for name, found in predictions.items()
        ]
        return cls(
            left=networks[0]["name"],
            right=networks[-1]["name"],
            networks=networks,
            image=data_url(gray, "jpeg"),
            label=data_url(~truth),
            size=list(truth.shape),
            _stills=_stills(gray, truth, predictions),
        )

    @traitlets.validate("left", "right")
    def _known(self, proposal: Any) -> str:
        names = [network["name"] for network in self.networks]
        if names and proposal["value"] not in names:
            raise ValueError(
                f"{proposal['trait'].name} must be one of {', '.join(names)}, "
                f"got {proposal['value']!r}"
            )
        return proposal["value"]

    def rows(self) -> list[tuple[str, ...]]:
        """Return name and shares of wrong, missed and invented pixels of each network."""
        return [(network["name"], *network["shares"]) for network in self.networks]

    def table(self) -> str:
        """Return the errors of all networks as text."""
        return text_table([HEAD, *self.rows()])

    def still(self) -> str:
        """Return maps, wrong pixels and a table, as HTML."""
        height, width = self.size or (0, 0)
        pictures = [
            captioned(self.image, "image", "The micrograph."),
            captioned(self.label, "label", "The label, membranes dark."),
        ]
        for name, wrong, missed, invented in self.rows():
            shown, errors = self._stills[name]
            pictures += [
                captioned(shown, name, f"Membrane probability of {name}, membranes dark."),
                captioned(
                    errors,
                    f"{name}: {wrong} wrong",
                    f"Wrong pixels of {name} over the micrograph: {missed} of all are missed "
                    f"membrane, {invented} invented.",
                ),
            ]
        return (
            '<figure style="margin:0"><div style="display:grid;gap:0.5rem;'
            'grid-template-columns:repeat(2,minmax(0,12rem))">\n'
            + "\n".join(pictures)
            + "\n</div>\n<figcaption>The same image through each network: what it predicts, and "
            "where it errs. Orange is missed membrane, blue is invented membrane.</figcaption>"
            "</figure>\n" + html_table(f"Share of {height}×{width} pixels", HEAD, self.rows())
        )


def _gray(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Check the micrograph."""
    gray = np.asarray(image, np.float32)
    if gray.shape not in (shape, (1, *shape)) or not np.isfinite(gray).all():
        raise ValueError(
            f"expected a finite image of shape {shape} or {(1, *shape)}, as the label has, got "
            f"{gray.shape}: cut the same part out of both"
        )
    return gray.reshape(shape)


def _network(name: str, probability: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Store a map, and count its wrong pixels."""
    if probability.shape != truth.shape:
        raise ValueError(
            f"{name}: expected membrane probabilities of shape {truth.shape}, as the label has, "
            f"got {probability.shape}; of class probabilities (C, H, W) take [1]"
        )
    # Written so that NaN fails too.
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(
            f"{name}: expected probabilities from 0 to 1: of logits take the softmax, of an 8-bit "
            "map a 255th"
        )
    found = probability > 0.5
    missed, invented = truth & ~found, found & ~truth
    return {
        "name": name,
        "map": data_url(quantize(1 - probability.astype(np.float32), GRAYS)),
        "wrong": overlay_url(np.where(missed, 1, np.where(invented, 2, 0)), [MISSED, INVENTED]),
        "shares": [f"{pixels.mean():.1%}" for pixels in (missed | invented, missed, invented)],
    }


def _stills(
    gray: np.ndarray, truth: np.ndarray, predictions: Mapping[str, np.ndarray]
) -> dict[str, tuple[str, str]]:
    """Draw the map and the wrong pixels of each network, small."""
    return {
        str(name): (
            data_url(1 - np.asarray(found, np.float32), "jpeg", STILL_SIDE),
            data_url(error_overlay(gray, np.asarray(found) > 0.5, truth), "jpeg", STILL_SIDE),
        )
        for name, found in predictions.items()
    }
