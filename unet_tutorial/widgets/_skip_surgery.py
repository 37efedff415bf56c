"""What a skip connection is worth: cut it, dim it, hand on its mean or another image's maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets

from unet_tutorial._pictures import data_url, png_url, quantize
from unet_tutorial.inference import _as_image
from unet_tutorial.metrics import dice, pixel_error
from unet_tutorial.plots import error_overlay
from unet_tutorial.surgery import WAYS, Treatment, treat_skips
from unet_tutorial.widgets._live import (
    LiveWidget,
    Network,
    PageNetwork,
    center,
    check_alike,
    eight_bit,
    middle,
    picture_url,
    prepare,
)
from unet_tutorial.widgets._markup import captioned, html_table, text_table

SIDE = 128  # pixels of the image


class SkipSurgery(LiveWidget):
    """Treat the skips of a network that runs in the page: mask, wrong pixels and scores follow.

    Attributes
    ----------
    ways : list of str
        What each skip carries, from the top: ``"own"``, its maps; ``"cut"``, zeros; ``"mean"``, in
        each map its mean everywhere; ``"other"``, the maps of the other image.
    parts : list of int
        How much of that, in percent.
    other : str
        The other image, as the address of a PNG.
    middle : str
        The part of the image that the answer covers.
    label : str
        The true mask of that part, dark where the class is that is looked for.
    probability : str
        The stored example: what the untreated network answers, 8-bit, dark where it is sure.
    target : str
        Name of the class that is looked for.
    area : list of int
        Height and width of the answer.
    scores : dict
        For each network the wrong pixels and the Dice coefficient of its untreated self, as text.
    absent : list of str
        Networks that have no skips.
    names : list of list of str
        The choices for ``ways``, each with its words.
    outcomes : list of list of str
        The stored table: in each row what was done, and wrong pixels and Dice of each network.

    See Also
    --------
    unet_tutorial.surgery.treat_skips : The same in PyTorch.
    """

    front_end = "skip-surgery"
    scripts = ("core.js", "engine.js", "live.js", "skip-surgery.js")

    ways = traitlets.List(traitlets.Enum(list(WAYS))).tag(sync=True)
    parts = traitlets.List(traitlets.Int(min=0, max=100)).tag(sync=True)
    other = traitlets.Unicode("").tag(sync=True)
    middle = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    probability = traitlets.Unicode("").tag(sync=True)
    target = traitlets.Unicode("").tag(sync=True)
    area = traitlets.List(traitlets.Int()).tag(sync=True)
    scores = traitlets.Dict().tag(sync=True)
    absent = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(default_value=[list(pair) for pair in WAYS.items()]).tag(sync=True)
    outcomes = traitlets.List(traitlets.List(traitlets.Unicode()))
    _wrong = traitlets.Unicode("")  # for a page without script; the front end paints its own

    @classmethod
    def of(
        cls,
        models: Network | Mapping[str, Network],
        image: np.ndarray,
        label: np.ndarray,
        other: np.ndarray,
    ) -> SkipSurgery:
        """Operate on networks.

        Parameters
        ----------
        models : UNet, str, Path, or mapping of str to these
            As in `LiveU.of`: networks of two classes, of one depth and padding. The first runs
            first.
        image : numpy.ndarray
            (H, W) or (C, H, W), as `unet_tutorial.inference.predict` takes it, 0 to 1; the middle
            of it is used, at most 128×128 pixels.
        label : numpy.ndarray
            (H, W) class indices of the same image, 1 for what is looked for.
        other : numpy.ndarray
            Another image, of the same size or larger, whose skips may be handed on.

        Returns
        -------
        SkipSurgery

        Raises
        ------
        ValueError
            If sizes do not fit, or the networks differ in more than their skips.

        Examples
        --------
        >>> from unet_tutorial import UNet
        >>> model = UNet(1, 2, base_channels=2, depth=1, skip="none")
        >>> image = np.zeros((16, 16))
        >>> widget = SkipSurgery.of(model, image, image.astype(int), image + 0.5)
        >>> print(widget.table().splitlines()[0])
        skips                    yours: wrong  yours: Dice
        """
        networks = prepare(models)
        first = networks[0].model
        check_alike(networks, "depth", "padding", "in_channels")
        for network in networks:
            if network.model.num_classes != 2:
                raise ValueError(
                    f"{network.name}: wrong pixels and Dice are those of one class against the "
                    f"background; this network has {network.model.num_classes} classes, not 2"
                )
        source = _as_image(image, first)
        truth = np.asarray(label)
        if truth.shape != source.shape[1:] or not np.isin(truth, (0, 1)).all():
            raise ValueError(
                f"expected a label of 0 and 1 in the image's shape {source.shape[1:]}, got "
                f"{truth.shape}, {truth.min(initial=0)} to {truth.max(initial=0)}"
            )
        example = np.ascontiguousarray(eight_bit(middle(source, first, SIDE)))
        size = example.shape[1:]
        stranger = _as_image(other, first)
        if any(its < mine for its, mine in zip(stranger.shape[1:], size, strict=True)):
            raise ValueError(
                f"the other image has {'×'.join(map(str, stranger.shape[1:]))} pixels, fewer than "
                f"the {'×'.join(map(str, size))} that are used"
            )
        stranger = np.ascontiguousarray(eight_bit(center(stranger, size)))
        found = networks[0].probabilities(example)[1]
        truth = center(center(truth, size), found.shape)
        outcomes = _operate(networks, example, truth, stranger)
        titles = [network.name for network in networks]
        widget = cls(
            networks=[network.entry() for network in networks],
            network=titles[0],
            picture=picture_url(example),
            size=list(size),
            colors=len(example),
            ways=["own"] * first.depth,
            parts=[100] * first.depth,
            other=picture_url(stranger),
            middle=picture_url(center(example, found.shape)),
            label=png_url(quantize(1 - truth, 2)),
            probability=png_url(quantize(1 - found, 256)),
            target=networks[0].class_names()[1],
            area=list(found.shape),
            scores={name: outcomes[0][1 + 2 * k : 3 + 2 * k] for k, name in enumerate(titles)},
            absent=[one.name for one in networks if one.model.options["skip"] == "none"],
            outcomes=outcomes,
            _wrong=data_url(
                error_overlay(center(example, found.shape).mean(0), found > 0.5, truth), "jpeg"
            ),
        )
        widget.keep(networks)
        return widget

    @traitlets.validate("ways", "parts")
    def _as_many(self, proposal: Any) -> list[Any]:
        now = getattr(self, proposal["trait"].name)
        if now and len(proposal["value"]) != len(now):
            raise ValueError(
                f"{proposal['trait'].name} has one entry for each of the {len(now)} skips, from "
                f"the top, got {len(proposal['value'])}"
            )
        return proposal["value"]

    def head(self) -> list[str]:
        """Return the head of the table."""
        names = [entry["name"] for entry in self.networks]
        return ["skips", *(f"{name}: {what}" for name in names for what in ("wrong", "Dice"))]

    def table(self) -> str:
        """Return what each operation does to each network, as text."""
        return text_table([self.head(), *self.outcomes], align="<>")

    def still(self) -> str:
        """Return both images, the untreated answer and the table, as HTML."""
        wrong, overlap = self.scores[self.network]
        title = self.networks[0]["title"]
        pictures = [
            captioned(self.picture, "image", "The image."),
            captioned(self.other, "the other image", "The other image."),
            captioned(self.label, f"{self.target}: label", f"The label, {self.target} dark."),
            captioned(
                self.probability,
                f"{self.target}: probability",
                f"Probability of {self.target} with all skips as trained: black is 1.",
            ),
            captioned(
                self._wrong,
                f"{wrong} wrong",
                f"Wrong pixels over the image, {wrong} of all; Dice {overlap}.",
            ),
        ]
        return (
            '<figure style="margin:0"><div style="display:grid;gap:0.5rem;'
            'grid-template-columns:repeat(auto-fit,minmax(7rem,10rem))">\n'
            + "\n".join(pictures)
            + f"\n</div>\n<figcaption>{title}, its skips as trained. Orange is missed "
            f"{self.target}, blue is invented {self.target}.</figcaption></figure>\n"
            + html_table(
                "One skip at a time: wrong pixels and Dice coefficient", self.head(), self.outcomes
            )
        )


def _operate(
    networks: list[PageNetwork], image: np.ndarray, truth: np.ndarray, other: np.ndarray
) -> list[list[str]]:
    """Score every network as trained, and with each skip treated in each way."""
    operations: list[tuple[str, dict[int, Treatment]]] = [("as trained", {})]
    operations += [
        (f"skip {level}: {WAYS[way]}", {level: (way, 1.0)})
        for level in range(1, networks[0].model.depth + 1)
        for way in ("cut", "mean", "other")
    ]
    rows = []
    for words, treatments in operations:
        row = [words]
        for network in networks:
            if treatments and network.model.options["skip"] == "none":
                row += ["–", "–"]
                continue
            with treat_skips(network.model, treatments, other):
                mask = network.probabilities(image)[1] > 0.5
            row += [f"{pixel_error(mask, truth):.1%}", f"{dice(mask, truth):.3f}"]
        rows.append(row)
    return rows
