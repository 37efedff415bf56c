"""The paper's elastic deformation, to pull at: an image, its labels, and nine displacements."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import traitlets
from PIL import ImageColor

from unet_tutorial._pictures import data_url, png_url
from unet_tutorial.augmentation import deform, interpolate_displacement
from unet_tutorial.plots import INVENTED, MISSED
from unet_tutorial.widgets._host import BookWidget
from unet_tutorial.widgets._markup import captioned, html_table, text_table

LONGEST = 256  # pixels; every one is looked up anew at each pull
LINES = 16  # pixels between the lines that bend with the image
LINE, CONTOUR = "#00a0a0", "#ffd166"
REACH = 99  # pixels that a handle can be pulled, in each direction
DRAWS = 10  # stored for a page without Python, which cannot draw as PyTorch does
HEAD = ("pixels down, right", "left", "middle", "right")
NINE = [f"{{{k}}}" for k in range(9)]  # places for the words of each handle
ROWS = ("top", "middle", "bottom")
PLACES = [f"{row} {column}" for row in ROWS for column in HEAD[1:]]
TITLE = "Where the pixel at each dot comes from"
#: Words of the page and of Python, with places for values.
TEXTS: dict[str, Any] = {
    "names": PLACES,
    "after": "Pull at a dot, or move it with the arrow keys: the picture follows.<p>{verdict}</p>"
    + html_table(TITLE, HEAD, [(name, *NINE[3 * k : 3 * k + 3]) for k, name in enumerate(ROWS)]),
    "alt": "The bent image, with lines that were straight.",
    "colors": [list(ImageColor.getrgb(color)) for color in (MISSED, INVENTED, CONTOUR)],
}
#: What the page says of labels that move with the image, or stay.
VERDICTS = {
    "true": "The labels move with the image, and none lies wrong. Left where they were, {share} "
    "would.",
    "false": "The labels stayed: {share} lie wrong. Orange is missed, blue is invented.",
}


class ElasticPlayground(BookWidget):
    """An image bent by the paper's 3×3 displacements, which can be drawn anew or pulled by hand.

    The field between the handles is bicubic, as `unet_tutorial.augmentation.elastic_displacement`
    draws it, and beyond its border the image is mirrored, as by
    `unet_tutorial.augmentation.deform`. The page computes both by itself.

    Parameters
    ----------
    image : numpy.ndarray
        (H, W) or (1, H, W), 0 to 1 or 8-bit; 2 to 256 pixels high and wide. A crop of 128 to 192
        shows most.
    labels : numpy.ndarray, optional
        (H, W) class indices from 0 to 255; where two meet, a contour is drawn.
    displacement : float
        Standard deviation of the displacements in pixels, 0 to 30. The paper has 10, on tiles of
        572 pixels: the same 10 bend a crop more.
    seed : int
        Seed of the first draw.

    Attributes
    ----------
    displacement, seed
        As above. Setting either draws all nine displacements anew.
    handles : list of list of float
        Nine pairs, row by row of the grid, the outermost on the corners: how many pixels further
        down, and to the right, the pixel at the handle comes from. At most 99 each way.
    bend_labels : bool
        Whether the labels move with the image, as they must.
    draws : dict
        By seed (as text), the nine pairs that it draws at a standard deviation of 1.
    image, labels : str
        Both as pictures: the image with its lines, the labels with their class indices as gray.
    size : list of int
        Height and width in pixels.
    texts : dict
        Words, colors and handles of the page.

    Raises
    ------
    ValueError
        If the image is no picture of that size, holds values that are not finite or outside of 0
        to 1, or the labels do not belong to it.

    See Also
    --------
    unet_tutorial.augmentation.deform : What a training does with a batch. Used in chapter 5.

    Examples
    --------
    >>> micrograph = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    >>> playground = ElasticPlayground(micrograph, micrograph > 0.5, displacement=0)
    >>> handles = [[0.0, 0.0]] * 9
    >>> handles[4] = [8.0, 0.0]  # what is 8 pixels further down comes to the middle
    >>> playground.handles = handles
    >>> image, labels = playground.warped()
    >>> round(float(image[31, 31] - micrograph[31, 31]), 2)
    0.12
    """

    front_end = "elastic-playground"
    scripts = ("core.js", "elastic-playground.js")

    displacement = traitlets.Float(10.0, min=0.0, max=30.0).tag(sync=True)
    seed = traitlets.Int(0, min=0, max=2**31 - 1).tag(sync=True)
    handles = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)
    bend_labels = traitlets.Bool(True).tag(sync=True)
    draws = traitlets.Dict().tag(sync=True)
    image = traitlets.Unicode("").tag(sync=True)
    labels = traitlets.Unicode("").tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        image: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        displacement: float = 10.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self._gray = _gray(image)
        self._marks = _marks(labels, self._gray.shape)
        self._labeled = labels is not None
        self._lined = np.repeat(255 * self._gray[..., None], 3, axis=2)
        _paint(self._lined, LINE, 0.7 * _lines(self._gray.shape))
        super().__init__(
            displacement=displacement,
            seed=seed,
            image=data_url(np.round(self._lined).astype(np.uint8), "jpeg"),
            labels=png_url(self._marks),
            size=list(self._gray.shape),
            texts=TEXTS | (VERDICTS if self._labeled else {}) | {"page": _page(*self._gray.shape)},
            **options,
        )
        self._draw(keep="handles" in options)
        self.observe(self._draw, ["displacement", "seed"])

    def _draw(self, change: Any = None, keep: bool = False) -> None:
        if str(self.seed) not in self.draws:
            self.draws = {str(seed): _normal(seed) for seed in range(self.seed, self.seed + DRAWS)}
        if not keep:
            # A thousandth of a pixel: what a page stores is the same on every processor.
            drawn = self.draws[str(self.seed)]
            self.handles = [
                [round(self.displacement * value, 3) for value in pair] for pair in drawn
            ]

    @traitlets.validate("displacement")
    def _finite(self, proposal: Any) -> float:
        if not np.isfinite(proposal["value"]):
            raise ValueError(f"the displacement goes from 0 to 30 pixels, got {proposal['value']}")
        return float(proposal["value"])

    @traitlets.validate("handles")
    def _nine(self, proposal: Any) -> list[list[float]]:
        given = proposal["value"]
        # Written so that NaN fails too.
        if [len(pair) for pair in given] != [2] * 9 or not (np.abs(given) <= REACH).all():
            raise ValueError(
                f"expected nine pairs of pixels from -{REACH} to {REACH} (down, right), row by row "
                f"of the 3×3 grid, got {given}"
            )
        return [[float(value) for value in pair] for pair in given]

    def field(self) -> np.ndarray:
        """Return how many pixels further down, and to the right, every pixel comes from.

        Returns
        -------
        numpy.ndarray
            (2, H, W) float32.

        Examples
        --------
        >>> playground = ElasticPlayground(np.zeros((32, 48)))
        >>> chance = torch.Generator().manual_seed(0)
        >>> from unet_tutorial.augmentation import elastic_displacement
        >>> drawn = elastic_displacement(1, (32, 48), generator=chance)[0].numpy()
        >>> bool(np.abs(playground.field() - drawn).max() < 0.01)
        True
        """
        return self._field()[0].numpy()

    def _field(self) -> torch.Tensor:
        coarse = torch.tensor(self.handles).T.reshape(1, 2, 3, 3)
        return interpolate_displacement(coarse, (self.size[0], self.size[1]))

    def warped(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the image and its labels as they are now.

        Returns
        -------
        numpy.ndarray, numpy.ndarray or None
            (H, W) float32 from 0 to 1, and (H, W) 8-bit class indices: bent too, or as they were
            given if ``bend_labels`` is off; None if there are none.

        Examples
        --------
        >>> playground = ElasticPlayground(np.ones((32, 32)), np.eye(32))
        >>> playground.bend_labels = False
        >>> image, labels = playground.warped()
        >>> bool((labels == np.eye(32)).all())
        True
        """
        image, bent = self._bent()
        if not self._labeled:
            return image, None
        return image, bent if self.bend_labels else self._marks.copy()

    def _bent(self) -> tuple[np.ndarray, np.ndarray]:
        images = torch.from_numpy(self._gray)[None, None]
        image, bent = deform(images, torch.from_numpy(self._marks)[None], self._field())
        return image[0, 0].numpy(), bent[0].numpy()

    def wrong(self) -> int:
        """Count the pixels whose label is wrong if only the image bends.

        Examples
        --------
        >>> ElasticPlayground(np.ones((32, 32)), np.eye(32), displacement=0).wrong()
        0
        """
        return int((self._bent()[1] != self._marks).sum())

    def rows(self) -> list[tuple[str, ...]]:
        """Return the displacements of the nine handles, in pixels down and to the right."""
        words = [f"{down:+.1f}, {right:+.1f}" for down, right in self.handles]
        return [(name, *words[3 * row : 3 * row + 3]) for row, name in enumerate(ROWS)]

    def table(self) -> str:
        """Return the displacements, and what they do to labels that stay, as text."""
        return f"{text_table([HEAD, *self.rows()], align='<>')}\n{self._verdict()}".rstrip()

    def _verdict(self) -> str:
        words = self.texts.get(str(self.bend_labels).lower(), "")
        return words.replace("{share}", f"{100 * self.wrong() / self._gray.size:.1f} %")

    def still(self) -> str:
        """Return the image before and after, and the displacements, as HTML."""
        about = f"standard deviation {self.displacement:g} pixels, seed {self.seed}"
        pictures = [
            captioned(self.image, "given", "The image, with straight lines over it."),
            captioned(self._drawn(), "bent", f"{self.texts['alt']} {about.capitalize()}."),
        ]
        return (
            '<figure style="margin:0"><div style="display:grid;gap:0.5rem;'
            'grid-template-columns:repeat(2,minmax(0,16rem))">\n'
            + "\n".join(pictures)
            + f"\n</div>\n<figcaption>Displacements on a grid of 3×3, bicubic in between: {about}. "
            f"{self._verdict()}</figcaption></figure>\n" + html_table(TITLE, HEAD, self.rows())
        )

    def _drawn(self) -> str:
        """Draw what the page draws: the bent image, contours and wrong labels."""
        images = torch.from_numpy(self._lined).permute(2, 0, 1)[None]
        marks = torch.from_numpy(self._marks)[None]
        image, bent = deform(images, marks, self._field())
        picture = image[0].permute(1, 2, 0).numpy().copy()
        right, shown = bent[0].numpy(), self._marks
        if self.bend_labels:
            shown = right
        picture[_contour(shown)] = ImageColor.getrgb(CONTOUR)
        picture[(shown != right) & (right > 0)] = ImageColor.getrgb(MISSED)
        picture[(shown != right) & (right == 0)] = ImageColor.getrgb(INVENTED)
        return data_url(np.round(picture).astype(np.uint8), "jpeg")


def _normal(seed: int) -> list[list[float]]:
    """Draw nine pairs as `elastic_displacement` does at a standard deviation of 1."""
    coarse = torch.randn(2, 9, generator=torch.Generator().manual_seed(seed))
    return [[round(value, 4) for value in pair] for pair in coarse.T.tolist()]


def _gray(image: np.ndarray) -> np.ndarray:
    """Check the image and bring it to 0 to 1."""
    given = np.asarray(image)
    gray = given[0] if given.ndim == 3 and len(given) == 1 else given
    if gray.ndim != 2 or not all(2 <= side <= LONGEST for side in gray.shape):
        raise ValueError(
            f"expected an image of shape (H, W) or (1, H, W) with 2 to {LONGEST} pixels on each "
            f"side, got {given.shape}: cut out a part, such as image[..., :160, :160]"
        )
    gray = gray / np.float32(255) if gray.dtype == np.uint8 else gray.astype(np.float32)
    # Written so that NaN fails too.
    if not ((gray >= 0) & (gray <= 1)).all():
        raise ValueError("expected values from 0 to 1, or 8-bit ones: scale the image to 0 to 1")
    return np.ascontiguousarray(gray)


def _marks(labels: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Check the labels: class indices that a picture can hold; without any, all is background."""
    given = np.zeros(shape, np.uint8) if labels is None else np.asarray(labels)
    if given.shape != shape:
        raise ValueError(
            f"expected labels of shape {shape}, as the image has, got {given.shape}: cut the same "
            "part out of both"
        )
    marks = given.astype(np.uint8)
    if not (marks == given).all():
        raise ValueError("expected class indices, whole numbers from 0 to 255")
    return marks


def _lines(shape: tuple[int, ...]) -> np.ndarray:
    """Mark every sixteenth row and column."""
    rows, columns = (np.arange(length) % LINES == 0 for length in shape)
    return rows[:, None] | columns[None]


def _page(height: int, width: int) -> str:
    """Write the figure of the page: a canvas, below nine dots that the page puts into place."""
    lines = "".join(
        f'<line x1="{column * (width - 1) / 2:g}" y1="{row * (height - 1) / 2:g}"/>'
        for row in range(3)
        for column in range(3)
    )
    dot = (
        '<g tabindex="0" role="button" data-lm-suppress-shortcuts '
        f'style="cursor:move;touch-action:none"><circle r="{width / 15:.1f}" opacity="0"/>'
        f'<circle r="{width / 45:.1f}" fill="#fff" stroke="#000" '
        f'stroke-width="{width / 150:.2f}"/></g>'
    )
    return (
        '<figure style="display:flex;flex-wrap:wrap;margin:0"><div style="flex:1 1 12rem;'
        'margin:1.75rem;max-width:24rem;position:relative"><canvas role="img" '
        f'width="{width}" height="{height}" style="display:block;width:100%"></canvas>'
        f'<svg viewBox="-.5 -.5 {width} {height}" style="height:100%;inset:0;overflow:visible;'
        f'position:absolute;width:100%"><g stroke="#fff" stroke-width="{width / 110:.2f}">{lines}'
        f'</g>{9 * dot}</svg></div><figcaption style="flex:1 1 14rem"></figcaption></figure>'
    )


def _contour(marks: np.ndarray) -> np.ndarray:
    """Mark the pixels of a class beside which there is background."""
    around = np.pad(marks, 1, mode="edge")
    lowest = np.minimum.reduce(
        [around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]]
    )
    return (marks > 0) & (lowest == 0)


def _paint(picture: np.ndarray, color: str, opacity: np.ndarray) -> None:
    """Lay a color over a picture (H, W, 3), in place."""
    picture += opacity[..., None] * (np.array(ImageColor.getrgb(color), np.float32) - picture)
