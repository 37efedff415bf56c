"""What a network makes of one image: a few maps of each stage, arranged as the U."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import traitlets

from unet_tutorial._pictures import (
    gray_bytes,
    jpeg_url,
    png_url,
    quantize,
    read_url,
    shrink,
)
from unet_tutorial.features import _stages, stage_features
from unet_tutorial.inference import _as_image
from unet_tutorial.unet import check_size
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import html_table, text_table

LEVELS = 32  # brightness steps of a stored map
SIDE = 64  # pixels that a stored map has at most on its longer side
IMAGE_SIDE = 192
STILL_SIDE = 32  # of a map on a page without script

LEGEND = (
    "Of each stage, the maps whose values vary most over the image. Dark violet is a map's "
    "smallest value, yellow its largest."
)
HEAD = ("stage", "maps C×H×W", "channels shown", "values", "zero everywhere")


class FeatureMaps(BookWidget):
    """The maps of a network's stages for one image, a few channels of each, to open one by one.

    Attributes
    ----------
    stage : str
        Stage of the open map.
    channel : int
        Its channel, counted from 0.
    stages : list of dict
        For each stage, in the order in which they run: its ``name``; ``shape`` (C, H, W);
        ``title`` and ``place``, its heading and its style in the U; ``sheet``, the stored maps
        side by side as one gray picture; ``side``, the height and width of each; ``silent``, the
        number of channels that are zero everywhere; ``maps``, for each map its ``channel``, its
        ``range`` (smallest and largest value), the ``span`` of the stored map, and ``words``.
    image : str
        The image, small, as a ``data:`` address.
    legend : str
        What the pictures show, in words.

    See Also
    --------
    unet_tutorial.features.stage_features : All maps of a stage, as numbers.
    """

    front_end = "feature-maps"
    scripts = ("core.js", "feature-maps.js")

    stage = traitlets.Unicode("enc1").tag(sync=True)
    channel = traitlets.Int(0).tag(sync=True)
    stages = traitlets.List(traitlets.Dict()).tag(sync=True)
    image = traitlets.Unicode("").tag(sync=True)
    legend = traitlets.Unicode(LEGEND).tag(sync=True)

    @classmethod
    def of(cls, model: Any, image: np.ndarray, channels: int = 6) -> FeatureMaps:
        """Run a network on an image and keep the most telling maps of each stage.

        Parameters
        ----------
        model : UNet or unet_tutorial.partial.ContractingPath
            A trained network; it stays in the mode that it is in.
        image : numpy.ndarray
            (H, W) or (C, H, W), as `unet_tutorial.inference.predict` takes it. The size must fit
            a padded network; an unpadded one mirrors the image beyond its borders.
        channels : int
            Maps to keep of each stage, from 1 to 12: those whose values vary most over the image.

        Returns
        -------
        FeatureMaps

        Raises
        ------
        ValueError
            If the network has no stages, the image does not fit, or there are too many channels.

        Examples
        --------
        >>> from unet_tutorial import UNet
        >>> model = UNet(1, 2, base_channels=2, depth=2)
        >>> maps = FeatureMaps.of(model, np.zeros((1, 32, 48)), channels=3)
        >>> [(stage["name"], stage["shape"]) for stage in maps.stages][:3]
        [('enc1', [2, 32, 48]), ('enc2', [4, 16, 24]), ('bottleneck', [8, 8, 12])]
        """
        if not isinstance(channels, int) or not 1 <= channels <= 12:
            raise ValueError(
                f"channels must be a whole number from 1 to 12, got {channels!r}: that many maps "
                "of each stage are stored"
            )
        names = _path(model)
        values = _as_image(image, model)
        if model.padding == "same":
            check_size(values.shape[1], values.shape[2], depth=model.depth)
        stages = [
            _stage(name, _style(name, names), stage_features(model, values, name), channels)
            for name in names
        ]
        return cls(
            stage=names[0],
            channel=stages[0]["maps"][0]["channel"],
            stages=stages,
            image=jpeg_url(gray_bytes(values, IMAGE_SIDE), quality=75),
        )

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return, for each stage: name, shape, channels shown, range of their values, silent ones.

        Examples
        --------
        >>> from unet_tutorial import UNet
        >>> maps = FeatureMaps.of(UNet(1, 2, base_channels=2, depth=1), np.zeros((16, 16)))
        >>> maps.rows()[1][:3]
        ('bottleneck', '4×8×8', '0, 1, 2, 3')
        """
        rows = []
        for stage in self.stages:
            ranges = np.array([one["range"] for one in stage["maps"]])
            rows.append(
                (
                    stage["name"],
                    "×".join(map(str, stage["shape"])),
                    _shown(stage),
                    f"{ranges.min():.3g} to {ranges.max():.3g}",
                    str(stage["silent"]),
                )
            )
        return rows

    def table(self) -> str:
        """Return the stages as text."""
        return text_table([HEAD, *self.rows()])

    def still(self) -> str:
        """Return the stages, arranged as the U, and the table, as HTML."""
        blocks = "\n".join(
            f'<div style="{stage["place"]}">{stage["title"]}<br>'
            f'<img alt="Maps of {stage["name"]}, channels {_shown(stage)}, in viridis." '
            f'src="{_strip(stage)}" style="display:inline;max-width:100%"></div>'
            for stage in self.stages
        )
        return (
            f'<figure style="margin:0"><img alt="The image." src="{self.image}" '
            'style="max-width:8rem">\n'
            '<div style="display:grid;grid-template-columns:1fr 1fr;gap:0.5rem">\n'
            f"{blocks}\n</div>\n<figcaption>{self.legend}</figcaption></figure>\n"
            + html_table("The stages and their maps", HEAD, self.rows())
        )


def _path(model: Any) -> list[str]:
    """Name the stages in the order in which they run."""
    names = list(_stages(model))
    if not names or not all(hasattr(model, name) for name in ("depth", "padding")):
        raise ValueError(
            f"expected a UNet or a ContractingPath, got {type(model).__name__}: this network has "
            "no stages to show"
        )
    return names


def _style(name: str, names: list[str]) -> str:
    """Give a stage its place in the U: down on the left, up on the right, drawn in toward below."""
    deepest = sum(other.startswith("enc") for other in names) + 1
    level = deepest if name == "bottleneck" else int(name[3:])
    column, align = ("2", "end") if name.startswith("dec") else ("1", "start")
    if name == "bottleneck" and "dec1" in names:
        return f"grid-row:{level};grid-column:1/3;text-align:center;justify-content:center"
    inward = f"calc({level - 1}*clamp(0px,4vw - 20px,20px))"
    return (
        f"grid-row:{level};grid-column:{column};text-align:{align};justify-content:{align};"
        f"padding-inline-{align}:{inward}"
    )


def _stage(name: str, place: str, features: np.ndarray, channels: int) -> dict[str, Any]:
    """Choose the channels of a stage and draw their maps side by side."""
    spread = features.reshape(len(features), -1).var(axis=1)
    chosen = sorted(int(channel) for channel in np.argsort(-spread, kind="stable")[:channels])
    shape = "×".join(map(str, features.shape[1:]))
    maps, drawn = [], []
    for channel in chosen:
        values = features[channel]
        small = shrink(values, SIDE)
        low, high = float(small.min()), float(small.max())
        drawn.append(quantize((small - low) / ((high - low) or 1.0), LEVELS))
        least, most = _range(values)
        words = f"{shape} values from {least:g} to {most:g}"
        if small.shape != values.shape:
            words += f", drawn as means at {'×'.join(map(str, small.shape))}"
        maps.append(
            {"channel": channel, "range": [least, most], "span": _range(small), "words": words}
        )
    return {
        "name": name,
        "title": f"{name} {len(features)}×{shape}",
        "place": place,
        "shape": list(features.shape),
        "maps": maps,
        "side": list(drawn[0].shape),
        "sheet": png_url(np.concatenate(drawn, axis=1)),
        "silent": int((features == 0).reshape(len(features), -1).all(axis=1).sum()),
    }


def _range(values: np.ndarray) -> list[float]:
    return [float(f"{value:.3g}") for value in (values.min(), values.max())]


def _shown(stage: dict[str, Any]) -> str:
    return ", ".join(str(one["channel"]) for one in stage["maps"])


def _strip(stage: dict[str, Any]) -> str:
    """Color the stored maps of a stage, small, for a page without script."""
    sheet = read_url(stage["sheet"]).astype(np.float32) / 255
    count, width = len(stage["maps"]), stage["side"][1]
    maps = [shrink(sheet[:, k * width : (k + 1) * width], STILL_SIDE) for k in range(count)]
    grown = [np.kron(m, np.ones((max(STILL_SIDE // max(m.shape), 1),) * 2)) for m in maps]
    gap = np.full((grown[0].shape[0], 2, 3), 255)
    colors = matplotlib.colormaps["viridis"]
    parts: list[np.ndarray] = []
    for values in grown:
        parts += [colors(values)[..., :3] * 255, gap]
    return jpeg_url(np.concatenate(parts[:-1], axis=1), quality=65)
