"""What others see of a page: address, description, card, icons, and what is shown for no page.

The site's address is ``html.baseurl`` of ``_config.yml``, which `make address` renews.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import matplotlib.pyplot as plt
import torch
from docutils import nodes
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from sphinx.application import Sphinx

from unet_tutorial import UNet
from unet_tutorial.plots import draw_u
from unet_tutorial.shapes import ShapeTrace, trace_shapes

CARD = (1200, 630)  # what Open Graph's readers show without cutting
MARGIN, INK, GRAY, BLUE = 56, "#23272e", "#5b626d", "#1f4e8c"
#: Which part of the U a chapter has built, by the number that its name begins with.
BUILT = {0: (), 1: ("enc", "pool"), 2: ("enc", "pool", "bottleneck")}
BUILT |= {3: (*BUILT[2], "up", "dec")}
NOT_FOUND = """
<section id="not-found">
<h1>There is no such page</h1>
<p>The address leads nowhere: it may have been misspelled, or the page has another name by now.</p>
<p>Go to the <a class="reference internal" href="index.html">first page</a>, choose a chapter from
the list, or <a class="reference internal" href="search.html">search the book</a>.</p>
</section>
"""


# ---- words


def describe(doctree: nodes.document | None, limit: int = 200) -> str:
    """Take the beginning of a page's text, up to a word's end."""
    words = ""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if len(words) > limit:
            break
        if isinstance(paragraph.parent, nodes.section):
            words += " " + " ".join(paragraph.astext().split())
    words = words.strip()
    return words if len(words) <= limit else words[:limit].rsplit(" ", 1)[0].rstrip(".,:;–") + "…"


def question_of(doctree: nodes.document) -> str:
    """Find the question that a chapter answers: its first paragraph, in bold."""
    first = next(iter(doctree.findall(nodes.paragraph)), None)
    bold = next(iter(first.findall(nodes.strong)), None) if first else None
    return " ".join(bold.astext().split()) if bold else ""


# ---- pictures


def letters(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the typeface that Matplotlib brings."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)


def broken_lines(words: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break words into lines that fit a width in pixels."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@cache
def traced() -> ShapeTrace:
    """Follow an image through the article's network."""
    with torch.device("meta"):
        return trace_shapes(UNet(1, 2), (512, 512))


@cache
def drawn_u(chapter: int) -> Image.Image:
    """Draw the book's U with what is built after a chapter."""
    names = [stage.name for stage in traced()]
    parts = BUILT.get(chapter)
    built = names if parts is None else [name for name in names if name.startswith(tuple(parts))]
    if parts == ():
        built = []
    figure = draw_u(traced(), built=built, labels=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=100, facecolor="white")
    plt.close(figure)
    return Image.open(file).convert("RGB")


def draw_card(file: Path, title: str, question: str, chapter: int) -> None:
    """Draw what is shown where somebody passes on the address of a page."""
    card = Image.new("RGB", CARD, "white")
    pen = ImageDraw.Draw(card)
    width = CARD[0] - 2 * MARGIN
    pen.rectangle((0, 0, CARD[0], 12), fill="#6ea3d8")
    y = 48.0
    if title != "Inside U-Net":
        pen.text((MARGIN, y), "Inside U-Net", fill=GRAY, font=letters(26))
        y += 42
    for size, bold, color, words in ((54, True, INK, title), (30, False, BLUE, question)):
        font = letters(size, bold)
        for line in broken_lines(words, font, width) if words else ():
            pen.text((MARGIN, y), line, fill=color, font=font)
            y += 1.3 * size
    picture = drawn_u(chapter)
    room = (width, int(CARD[1] - y - 40))
    picture.thumbnail(room) if picture.width > room[0] or picture.height > room[1] else None
    card.paste(picture, ((CARD[0] - picture.width) // 2, CARD[1] - picture.height - 20))
    file.parent.mkdir(parents=True, exist_ok=True)
    card.quantize(160, dither=Image.Dither.NONE).save(file, optimize=True)


def draw_mark(svg: Path, file: Path, side: int) -> None:
    """Draw the book's mark, boxes and lines of its SVG, for those who show no SVG as an icon."""
    scale, name = 8, "{http://www.w3.org/2000/svg}"
    root = ET.parse(svg).getroot()
    left, top, width, height = (float(value) for value in root.attrib["viewBox"].split())
    unit = side * scale * 0.9 / max(width, height)
    edge = (side * scale - unit * width) / 2, (side * scale - unit * height) / 2
    picture = Image.new("RGB", (side * scale, side * scale), "white")
    pen = ImageDraw.Draw(picture)

    def at(x: float, y: float) -> tuple[float, float]:
        return edge[0] + unit * (x - left), edge[1] + unit * (y - top)

    for group in root.iter(f"{name}g"):
        for box in group.iter(f"{name}rect"):
            x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
            pen.rectangle((at(x, y), at(x + w, y + h)), fill=group.attrib["fill"])
        for path in group.iter(f"{name}path"):
            for x, y, length in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", path.attrib["d"]):
                a, b = at(float(x), float(y)), at(float(x) + float(length), float(y))
                thick = float(group.attrib["stroke-width"]) * unit
                pen.line((a, b), fill=group.attrib["stroke"], width=round(thick))
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    small.quantize(32, dither=Image.Dither.NONE).save(file, optimize=True)


# ---- pages


def describe_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write what search engines and those who show a link want to know."""
    title = re.sub(r"<[^>]*>", "", context.get("title") or app.config.html_title)
    facts = [("name", "description", describe(doctree) or f"{title}. {app.config.html_title}")]
    if doctree and app.config.html_baseurl:
        number = re.match(r"(\d+)-", page)
        card = f"_static/cards/{page}.png"
        question = question_of(doctree)
        draw_card(Path(app.outdir) / card, title, question, int(number[1]) if number else 9)
        book = app.config.html_title
        facts += [
            ("property", "og:type", "website" if page == app.config.root_doc else "article"),
            ("property", "og:site_name", book),
            ("property", "og:title", title),
            ("property", "og:description", facts[0][2]),
            ("property", "og:url", context["pageurl"]),
            ("property", "og:image", app.config.html_baseurl + card),
            ("property", "og:image:width", str(CARD[0])),
            ("property", "og:image:height", str(CARD[1])),
            ("property", "og:image:alt", f"{title}. {question} The U-Net, drawn to scale."),
            ("name", "twitter:card", "summary_large_image"),
        ]
    lines = [f'<meta {kind}="{key}" content="{escape(value)}" />' for kind, key, value in facts]
    static = context["pathto"]("_static", resource=True)
    lines += [
        f'<link rel="icon" type="image/png" sizes="32x32" href="{static}/favicon-32.png" />',
        f'<link rel="apple-touch-icon" href="{static}/apple-touch-icon.png" />',
    ]
    context["metatags"] = context.get("metatags", "") + "\n    " + "\n    ".join(lines)


def page_not_found(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Add the page that GitHub shows for an address that leads nowhere."""
    yield "404", {"title": "Not found", "body": NOT_FOUND}, "page.html"


def finish(app: Sphinx, problem: Exception | None) -> None:
    """Draw the icons, and let the page "not found" work at any address.

    It is shown at addresses of any depth, so it names all files from the site's root.
    """
    if problem or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    draw_mark(static / "favicon.svg", static / "favicon-32.png", 32)
    draw_mark(static / "favicon.svg", static / "apple-touch-icon.png", 180)
    root = urlsplit(app.config.html_baseurl).path or "/"
    file = Path(app.outdir) / "404.html"
    text = file.read_text(encoding="utf-8")
    text = re.sub(r'<link rel="canonical"[^>]*>', '<meta name="robots" content="noindex" />', text)
    text = re.sub(r'\b(href|src|action)="(?![a-z]+:|[/#])', rf'\1="{root}', text)
    text = text.replace('data-content_root="./"', f'data-content_root="{root}"')
    file.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Describe pages when they are written, finish when all are."""
    app.connect("html-page-context", describe_page)
    app.connect("html-collect-pages", page_not_found)
    app.connect("build-finished", finish, priority=950)  # after the pages are light
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
