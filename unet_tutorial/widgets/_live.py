"""Widgets in which a network runs: in the page, without a kernel, without a server."""

from __future__ import annotations

import html
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import traitlets

from unet_tutorial._files import write_text_whole
from unet_tutorial._pictures import data_url, jpeg_url, png_url, quantize
from unet_tutorial.export import list_networks, load_network, read_network, write_network
from unet_tutorial.features import stage_features
from unet_tutorial.inference import _as_image
from unet_tutorial.shapes import allowed_sizes
from unet_tutorial.unet import UNet, fits
from unet_tutorial.widgets._feature_maps import _path
from unet_tutorial.widgets._host import (
    LIVE_SCRIPT,
    BookWidget,
    live_script,
    network_script,
    site_script,
    style,
)
from unet_tutorial.widgets._markup import captioned, html_table, text_table

SIDE = 256  # pixels of an image in a page, and of a stage's maps side by side
SIZES = (64, 128, 256)
HEAD = ("stage", "maps C×H×W")

Network = UNet | str | Path


class LiveWidget(BookWidget):
    """Base of the widgets in which a network runs.

    The weights are no part of the state: the front end asks for them at the first touch. In a
    notebook the kernel sends them; the built site has those of
    `unet_tutorial.export.list_networks`.

    Attributes
    ----------
    networks : list of dict
        For each network its ``name``, its ``title``, the size of its weights in ``bytes``, whether
        the built ``site`` has it, ``words`` on how it was trained and how good it is, and whether
        images are divided by their own brightness first, ``even``.
    network : str
        Name of the one that runs.
    picture : str
        The image, 8-bit, as the address of a PNG.
    size : list of int
        Its height and width.
    colors : int
        Its channels: 1 for gray, 3 for color.
    weights : dict of str to bytes
        The networks' files; not synchronized.
    """

    module = LIVE_SCRIPT

    networks = traitlets.List(traitlets.Dict()).tag(sync=True)
    network = traitlets.Unicode("").tag(sync=True)
    picture = traitlets.Unicode("").tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    colors = traitlets.Int(1).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.weights: dict[str, bytes] = {}
        self.on_msg(self._answer)

    def keep(self, networks: Sequence[PageNetwork]) -> None:
        """Have the weights ready for the front end."""
        self.weights = {network.name: network.weights for network in networks}

    def _answer(self, widget: Any, content: Any, buffers: Any) -> None:
        """Send the weights that the front end wants."""
        name = content.get("want") if isinstance(content, dict) else None
        if name in self.weights:
            self.send({"network": name}, buffers=[self.weights[name]])


@dataclass(frozen=True)
class PageNetwork:
    """A network as a page runs it.

    Attributes
    ----------
    name : str
        One of `unet_tutorial.export.list_networks`, or the reader's own name for it.
    model : UNet
        With weights in half precision, batch normalization folded in.
    about : dict
        What its file says.
    weights : bytes
        The file.
    """

    name: str
    model: UNet
    about: dict[str, Any]
    weights: bytes

    def entry(self) -> dict[str, Any]:
        """Return what `LiveWidget.networks` says of it."""
        return {
            "name": self.name,
            "title": self.about.get("title", "your network"),
            "bytes": len(self.weights),
            "site": self.name in list_networks(),
            "words": f"{self.about.get('words', '')} {self.about.get('terms', '')}".strip(),
            "even": bool(self.about.get("even_brightness")),
        }

    def class_names(self) -> list[str]:
        """Name its classes."""
        numbers = [f"class {index}" for index in range(self.model.num_classes)]
        return list(self.about.get("class_names") or numbers)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Run it on an image (C, H, W) as the page does, in one piece: (classes, H', W')."""
        with torch.inference_mode():
            return self.model(torch.from_numpy(image)[None])[0].softmax(0).numpy()


def prepare(models: Network | Mapping[str, Network]) -> list[PageNetwork]:
    """Bring networks into the form in which a page runs them.

    Parameters
    ----------
    models : UNet, str, Path, or mapping of str to these
        A network, the name of one that comes with the package, or a file of ``unet-tutorial
        export``.

    Returns
    -------
    list of PageNetwork

    Examples
    --------
    >>> [network.name for network in prepare(UNet(1, 2, base_channels=2, depth=1))]
    ['yours']
    """
    if not isinstance(models, Mapping):
        models = {models if models in list_networks() else "yours": models}
    prepared = []
    with tempfile.TemporaryDirectory() as folder:
        for name, given in models.items():
            file = Path(folder) / "network.safetensors"
            model, about = (given, {}) if isinstance(given, UNet) else load_network(given)
            write_network(file, model, about=about)
            prepared.append(PageNetwork(str(name), *read_network(file), file.read_bytes()))
    return prepared


def check_alike(networks: Sequence[PageNetwork], *names: str) -> None:
    """Refuse networks that cannot share one image and one set of controls.

    Raises
    ------
    ValueError
        If one differs from the first in an attribute of these names.
    """
    first = networks[0].model
    for network in networks:
        for name in names:
            mine, its = getattr(network.model, name), getattr(first, name)
            if mine != its:
                raise ValueError(
                    f"{network.name}: {name} is {mine!r}, that of the first network {its!r}; "
                    "networks that are compared differ in their skips only"
                )


def sheet(features: np.ndarray) -> dict[str, Any]:
    """Draw all maps of a stage side by side, as the engine of a page does.

    Parameters
    ----------
    features : numpy.ndarray
        (C, H, W).

    Returns
    -------
    dict
        ``columns`` and ``rows`` of the layout, and ``picture``, (h, w, 3) bytes: each map in
        viridis over its own range.

    Examples
    --------
    >>> drawn = sheet(np.random.default_rng(0).random((32, 16, 24)))
    >>> drawn["columns"], drawn["rows"], drawn["picture"].shape
    (8, 4, (64, 192, 3))
    """
    channels, height, width = features.shape
    columns = min(channels, 2 ** math.ceil(math.log2(2 * channels) / 2))
    rows = math.ceil(channels / columns)
    every = max(1, math.ceil(max(height, width) * columns / SIDE))
    small = features[:, ::every, ::every]
    low = features.min(axis=(1, 2), keepdims=True)
    span = features.max(axis=(1, 2), keepdims=True) - low
    tiles = np.zeros((rows * columns, *small.shape[1:]), np.float32)
    tiles[:channels] = (small - low) / np.where(span > 0, span, 1)
    grid = tiles.reshape(rows, columns, *small.shape[1:]).transpose(0, 2, 1, 3)
    colors = matplotlib.colormaps["viridis"](grid.reshape(rows * small.shape[1], -1))
    return {"columns": columns, "rows": rows, "picture": quantize(colors[..., :3], 256)}


def middle(image: np.ndarray, model: UNet, longest: int) -> np.ndarray:
    """Cut the middle out of an image, as large as the network takes it and a page runs it.

    Raises
    ------
    ValueError
        If nothing of it fits.
    """
    height, width = image.shape[-2:]
    fitting = [allowed_sizes(model, maximum=min(length, longest)) for length in (height, width)]
    if not all(fitting):
        least = next(n for n in count(1) if fits(n, depth=model.depth, padding=model.padding))
        raise ValueError(
            f"the image has {height}×{width} pixels, of which at most {longest}×{longest} are "
            f"used; this network needs {least}×{least} or more"
        )
    return center(image, [sizes[-1] for sizes in fitting])


def center(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Cut the middle out of the last two axes; a view.

    Examples
    --------
    >>> center(np.arange(5)[None], (1, 3))
    array([[1, 2, 3]])
    """
    top, left = ((array.shape[k - 2] - size[k]) // 2 for k in (0, 1))
    return array[..., top : top + size[0], left : left + size[1]]


def eight_bit(image: np.ndarray) -> np.ndarray:
    """Round an image (C, H, W) from 0 to 1 to the 256 steps that a picture has."""
    return quantize(image, 256) / np.float32(255)


def picture_url(image: np.ndarray) -> str:
    """Write an image (1 or 3, H, W) as the address of a PNG."""
    if len(image) not in (1, 3):
        raise ValueError(
            f"a page shows gray (1) and color (3) images; this network wants {len(image)} channels"
        )
    pixels = quantize(image, 256)
    return png_url(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


class LiveU(LiveWidget):
    """A U-Net that runs in the page: draw on the image, and all its maps follow.

    Attributes
    ----------
    stage, channel : str, int
        The open map.
    stages : list of dict
        The stored example: ``name``, ``shape`` (C, H, W) and ``sheet``, a picture of all maps side
        by side, with its ``columns`` and ``rows``.
    classes : list of str
        Names by class index.
    shown : int
        Class whose probability is shown.
    probability, mask : str
        The stored example's pictures of that class and of the most probable classes.
    sizes : list of int
        Sides, in pixels, that may be run.
    side : int
        The one that is run.
    """

    front_end = "live-u"
    scripts = ("core.js", "engine.js", "live.js", "live-u.js")

    stage = traitlets.Unicode("enc1").tag(sync=True)
    channel = traitlets.Int(0, min=0).tag(sync=True)
    stages = traitlets.List(traitlets.Dict()).tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    shown = traitlets.Int(1, min=0).tag(sync=True)
    probability = traitlets.Unicode("").tag(sync=True)
    mask = traitlets.Unicode("").tag(sync=True)
    sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    side = traitlets.Int(128).tag(sync=True)

    @classmethod
    def of(cls, model: Network | Mapping[str, Network], image: np.ndarray) -> LiveU:
        """Let networks run in the page.

        Parameters
        ----------
        model : UNet, str, Path, or mapping of str to these
            A network of this package, the name of one that comes with it
            (`unet_tutorial.export.list_networks`) or a file of ``unet-tutorial export``. Of several
            the first runs first.
        image : numpy.ndarray
            (H, W) or (C, H, W), as `unet_tutorial.inference.predict` takes it, 0 to 1, gray or in
            color; the middle square of it is used, at most 256×256 pixels.

        Returns
        -------
        LiveU

        Raises
        ------
        ValueError
            If the image does not fit, or networks differ in more than their skips and width.

        Examples
        --------
        >>> model = UNet(1, 2, base_channels=2, depth=2)
        >>> print(LiveU.of(model, np.zeros((32, 48))).table())
        stage       maps C×H×W
        enc1        2×32×32
        enc2        4×16×16
        bottleneck  8×8×8
        dec2        4×16×16
        dec1        2×32×32
        """
        networks = prepare(model)
        check_alike(networks, "depth", "padding", "in_channels", "num_classes")
        first = networks[0]
        source = eight_bit(middle(_as_image(image, first.model), first.model, SIDE))
        sizes = sorted({min(middle(source, first.model, one).shape[-2:]) for one in SIZES})
        side = max((one for one in sizes if one <= 128), default=sizes[0])
        example = np.ascontiguousarray(middle(source, first.model, side))
        maps = {name: stage_features(first.model, example, name) for name in _path(first.model)}
        stages = []
        for name, features in maps.items():
            drawn = sheet(features)
            picture = jpeg_url(drawn.pop("picture"), quality=80)
            stages.append({"name": name, "shape": list(features.shape), "sheet": picture, **drawn})
        found = first.probabilities(example)
        shown = min(1, len(found) - 1)
        widget = cls(
            networks=[network.entry() for network in networks],
            network=first.name,
            # Of the first stage the map that varies most is worth a look.
            channel=int(maps["enc1"].var(axis=(1, 2)).argmax()),
            picture=picture_url(source),
            size=list(source.shape[-2:]),
            colors=len(source),
            stages=stages,
            classes=first.class_names(),
            shown=shown,
            probability=data_url(1 - found[shown], "jpeg"),  # dark, as membranes are
            mask=data_url(found.argmax(0) != shown),
            sizes=sizes,
            side=side,
        )
        widget.keep(networks)
        return widget

    def rows(self) -> list[tuple[str, str]]:
        """Return name and shape of each stage."""
        return [(stage["name"], "×".join(map(str, stage["shape"]))) for stage in self.stages]

    def table(self) -> str:
        """Return the stages as text."""
        return text_table([HEAD, *self.rows()])

    def still(self) -> str:
        """Return image, answer and maps of the stored example, and the table, as HTML."""
        name = self.classes[self.shown]
        top = [
            captioned(self.picture, "image", "The image."),
            captioned(
                self.probability, f"{name}: probability", f"Probability of {name}: black is 1."
            ),
            captioned(
                self.mask, f"{name}: mask", f"Where {name} is the most probable class: black."
            ),
        ]
        maps = [
            captioned(
                stage["sheet"],
                f"{stage['name']} {shape}",
                f"All maps of {stage['name']}, each in viridis over its own range.",
                "width:100%;image-rendering:pixelated",
            )
            for stage, (_, shape) in zip(self.stages, self.rows(), strict=True)
        ]
        return (
            '<figure style="margin:0"><div style="display:grid;gap:0.5rem;'
            'grid-template-columns:repeat(3,minmax(0,10rem))">\n' + "\n".join(top) + "\n</div>\n"
            '<div style="display:grid;gap:0.5rem;grid-template-columns:repeat(2,minmax(0,1fr))">\n'
            + "\n".join(maps)
            + f"\n</div>\n<figcaption>{self.networks[0]['title']}: the stored example. "
            "With script the network runs in this page, and the image can be drawn on.</figcaption>"
            "</figure>\n" + html_table("The stages and their maps", HEAD, self.rows())
        )


def live(model: Network | Mapping[str, Network], image: np.ndarray) -> LiveU:
    """Let a U-Net run in the page or the notebook; see `LiveU.of`.

    Examples
    --------
    >>> live(UNet(1, 2, base_channels=2, depth=1), np.zeros((16, 16))).side
    16
    """
    return LiveU.of(model, image)


def write_page(path: str | Path, widget: LiveWidget, *, title: str) -> None:
    """Write a page in one file, in which a network runs: weights, engine, image, all of it.

    Parameters
    ----------
    path : str or Path
        The HTML file; it is replaced.
    widget : LiveWidget
        Such as `live` makes it.
    title : str
        Heading of the page.

    Examples
    --------
    >>> widget = live(UNet(1, 2, base_channels=2, depth=1), np.zeros((16, 16)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(Path(folder) / "page.html", widget, title="Cells")
    ...     "<h1>Cells</h1>" in (Path(folder) / "page.html").read_text(encoding="utf-8")
    True
    """
    scripts = [site_script(), live_script()]
    scripts += [network_script(name, weights) for name, weights in widget.weights.items()]
    heading = html.escape(title)
    write_text_whole(
        Path(path),
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>\n'
        '<meta name="viewport" content="width=device-width"><style>\n'
        ":root { color-scheme: light dark } body { font-family: system-ui; margin: 1rem auto; "
        f"max-width: 60rem; padding: 0 0.5rem }}\n{style()}</style></head>\n"
        f"<body><main><h1>{heading}</h1>\n{widget.static_html()}\n</main>\n"
        + "\n".join(f"<script>{text}</script>" for text in scripts)
        + "\n</body></html>\n",
    )
