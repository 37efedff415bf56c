"""The code of the two source documents, as they print it.

The book follows two documents: the article *Understanding the U-Net Architecture with Code*, and a
set of study notes whose code is quoted from K. Turgutlu, *Semantic Segmentation - U-Net (Part 1)*,
Medium. Their six fragments stand here word for word, slips included, so that the book can show
them, run them and compare them with the package. Nothing else in the package is built on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

ARTICLE = "Understanding the U-Net Architecture with Code"
NOTES = "study notes, quoting K. Turgutlu, Semantic Segmentation - U-Net (Part 1), Medium"


@dataclass(frozen=True)
class Fragment:
    """A piece of code that one of the documents prints.

    Attributes
    ----------
    document : str
        Which document; `ARTICLE` or `NOTES`.
    section : str
        Its heading there.
    code : str
        The code. The article's column of line numbers is left out, and so are spaces at the ends
        of lines; all other spaces and tabs are the document's.
    """

    document: str
    section: str
    code: str


FRAGMENTS: dict[str, Fragment] = {
    "article-1.1": Fragment(
        ARTICLE,
        "1.1 Blue arrow: Convolutional block",
        """\
class DoubleConvolution(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True)
        )

    def forward(self, x):
        return self.conv_block(x)
""",
    ),
    "article-1.2": Fragment(
        ARTICLE,
        "1.2 Red arrow: Maxpooling",
        """\
class DownSampling(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = DoubleConvolution(in_channels, out_channels)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, x):
        down = self.conv(x)
        pool = self.pool(down)

        return down, pool
""",
    ),
    "article-3": Fragment(
        ARTICLE,
        "3 Expansive Path (Upsampling)",
        """\
class UpSampling(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels//2, kernel_size=2, stride=2)
        self.conv = DoubleConvolution(in_channels, out_channels)

    def forward(self, x1, x2):
        x1 = self.up(x1)
        x = torch.cat((x1, x2), dim=1)
        return self.conv(x)
""",
    ),
    "article-4": Fragment(
        ARTICLE,
        "4 U-Net: Skip connections & Final layer",
        """\
class UNet(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.dconv1 = DownSampling(in_channels, 64)
        self.dconv2 = DownSampling(64, 128)
        self.dconv3 = DownSampling(128, 256)
        self.dconv4 = DownSampling(256, 512)

        self.bottle_neck = DoubleConvolution(512, 1024)

        self.uconv1 = UpSampling(1024, 512)
        self.uconv2 = UpSampling(512, 256)
        self.uconv3 = UpSampling(256, 128)
        self.uconv4 = UpSampling(128, 64)

        self.out = nn.Conv2d(64, num_classes, kernel_size=1)

    def forward(self, x):
        d1,p1 = self.dconv1(x)
        d2,p2 = self.dconv2(p1)
        d3,p3 = self.dconv3(p2)
        d4,p4 = self.dconv4(p3)

        b = self.bottle_neck(p4)

        u1 = self.uconv1(b, d4)
        u2 = self.uconv2(u1, d3)
        u3 = self.uconv3(u2, d2)
        u4 = self.uconv4(u3, d1)

        out = self.out(u4)
        return out
""",
    ),
    "notes-down": Fragment(
        NOTES,
        "First part",
        """\
 # a sample down block
 def make_conv_bn_relu(in_channels, out_channels, kernel_size=3, stride=1, padding=1):
\t return [
\t nn.Conv2d(in_channels, out_channels, kernel_size=kernel_size, stride=stride, padding=padding, bias=False),
\t nn.BatchNorm2d(out_channels),
\t nn.ReLU(inplace=True)
\t ]
\t self.down1 = nn.Sequential(
\t *make_conv_bn_relu(in_channels, 64, kernel_size=3, stride=1, padding=1 ),
\t *make_conv_bn_relu(64, 64, kernel_size=3, stride=1, padding=1 ),
\t )

 # convolutions followed by a maxpool
 down1 = self.down1(x)
 out1 = F.max_pool2d(down1, kernel_size=2, stride=2)
""",  # noqa: E501
    ),
    "notes-up": Fragment(
        NOTES,
        "Second Part",
        """\
# a sample up block
def make_conv_bn_relu(in_channels, out_channels, kernel_size=3, stride=1, padding=1):
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size=kernel_size,  stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True)
    ]
self.up4 = nn.Sequential(
    *make_conv_bn_relu(128,64, kernel_size=3, stride=1, padding=1 ),
    *make_conv_bn_relu(64,64, kernel_size=3, stride=1, padding=1 )
)
self.final_conv = nn.Conv2d(32, num_classes, kernel_size=1, stride=1, padding=0 )

# upsample out_last, concatenate with down1 and apply conv operations
out   = F.upsample(out_last, scale_factor=2, mode='bilinear')
out   = torch.cat([down1, out], 1)
out   = self.up4(out)

# final 1x1 conv for predictions
final_out = self.final_conv(out)
""",  # noqa: E501
    ),
}


def fragment(name: str) -> str:
    """Return a fragment's code as printed.

    Parameters
    ----------
    name : str
        One of the keys of `FRAGMENTS`: the document, then its section.

    Returns
    -------
    str
        The code; not all of it is valid Python.

    Raises
    ------
    KeyError
        If no fragment has this name.

    Examples
    --------
    >>> fragment("article-1.1").splitlines()[0]
    'class DoubleConvolution(nn.Module):'
    >>> fragment("article-2")
    Traceback (most recent call last):
    ...
    KeyError: "no fragment 'article-2'; there are article-1.1, article-1.2, article-3, article-4, \
notes-down, notes-up"
    """
    if name not in FRAGMENTS:
        raise KeyError(f"no fragment {name!r}; there are {', '.join(FRAGMENTS)}")
    return FRAGMENTS[name].code


def show_fragment(name: str) -> None:
    """Print a fragment with the line numbers by which the article's explanations call them.

    Parameters
    ----------
    name : str
        One of the keys of `FRAGMENTS`.

    Raises
    ------
    KeyError
        If no fragment has this name.

    Examples
    --------
    >>> show_fragment("article-1.2")
     1  class DownSampling(nn.Module):
     2      def __init__(self, in_channels, out_channels):
     3          super().__init__()
     4          self.conv = DoubleConvolution(in_channels, out_channels)
     5          self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
     6
     7      def forward(self, x):
     8          down = self.conv(x)
     9          pool = self.pool(down)
    10
    11          return down, pool
    """
    for number, line in enumerate(fragment(name).splitlines(), start=1):
        # A tab reaches to the next fourth column, as in most editors, whatever stands before it.
        print(f"{number:2}  {line.expandtabs(4)}".rstrip())


def article_namespace() -> dict[str, Any]:
    """Run the article's four fragments, in its order, and return the classes that they define.

    Returns
    -------
    dict
        ``DoubleConvolution``, ``DownSampling``, ``UpSampling`` and ``UNet`` by name: the article's
        own, not the package's.

    Examples
    --------
    >>> theirs = article_namespace()
    >>> list(theirs)
    ['DoubleConvolution', 'DownSampling', 'UpSampling', 'UNet']
    >>> theirs["UpSampling"](128, 64)(torch.zeros(1, 128, 8, 8), torch.zeros(1, 64, 16, 16)).shape
    torch.Size([1, 64, 16, 16])
    """
    # The article imports nothing, and its classes find each other in here.
    names: dict[str, Any] = {"__name__": __name__, "torch": torch, "nn": nn}
    given = {*names, "__builtins__"}
    for name, piece in FRAGMENTS.items():
        if piece.document == ARTICLE:
            exec(compile(piece.code, name, "exec"), names)
    return {name: thing for name, thing in names.items() if name not in given}
