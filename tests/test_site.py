"""The built site, as a reader's browser sees it."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from accessibility import find_violations
from conftest import ROOT, WIDE, serve

import unet_tutorial
from unet_tutorial._address import read_address
from unet_tutorial.chapters import list_chapters

CHAPTERS = [f"{chapter.stem}.html" for chapter in list_chapters(ROOT)]
WRITTEN = [
    "index.html",
    *CHAPTERS,
    "glossary.html",
    "results.html",
    "runs.html",
    "api-network.html",
    "api-training.html",
    "api-use.html",
    "api-chapters.html",
    "formulas.html",
]
PAGES = [*WRITTEN, "search.html", "genindex.html"]
THEMES = ["dark", "light"]
WIDTHS = WIDE_SCREEN, NARROW_SCREEN = [1280, 320]
COLORS = ("color-contrast", "link-in-text-block")


class Links(HTMLParser):
    """Collect what a page points to, and what can be pointed to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.targets: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.targets.update(found[key] or "" for key in ("id", "name") if key in found)
        if tag == "img":
            self.images.append(found)
        address = found.get("src") or (found.get("href") if tag in ("a", "link") else None)
        if address and not address.startswith(("data:", "javascript:", "mailto:")):
            self.links.append(address)


@cache
def read(page: Path) -> Links:
    """Read a page once: many others point to it."""
    return Links(page)


def broken(page: Path) -> list[str]:
    """List the addresses within the site that lead nowhere."""
    wrong = []
    for address in read(page).links:
        link, anchor = urldefrag(address)
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        anchors = (
            read(target).targets if target.suffix == ".html" and target.is_file() else {anchor}
        )
        if not target.is_file() or (anchor and unquote(anchor) not in anchors):
            wrong.append(address)
    return wrong


def test_every_public_module_is_in_the_api() -> None:
    package = {
        f"unet_tutorial.{module.name}"
        for module in pkgutil.iter_modules(unet_tutorial.__path__)
        if not module.name.startswith("_")
    }
    pages = sorted((ROOT / "book").glob("api-*.md"))
    told = [
        line.split("::")[1].strip()
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith(".. automodule::")
    ]
    assert sorted(told) == sorted(package - {"unet_tutorial.cli"})


def test_pages_of_the_site_are_the_known_ones(site: Path) -> None:
    # "Not found" names its files from the root of the site: test_site_light serves it there.
    assert {page.name for page in site.glob("*.html")} == {*PAGES, "404.html"}


@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_and_image_leads_somewhere(site: Path, page: str) -> None:
    assert broken(site / page) == []


def test_broken_links_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<a href="gone.html">x</a> <a href="#gone">x</a> <img src="a.png"> <p id="p">')
    assert broken(page) == ["gone.html", "#gone", "a.png"]


@pytest.mark.parametrize("page", PAGES)
def test_every_image_has_an_alternative_text(site: Path, page: str) -> None:
    # The name stands beside the logo; Sphinx's own default for figures is the file's name.
    for image in read(site / page).images:
        text = image["alt"] or ""
        assert len(text) > 3 or "logo__image" in (image["class"] or ""), image
        assert "_images/" not in text, f"no text in the metadata of the cell: {image}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_figure_says_more_than_its_kind(site: Path, page: str) -> None:
    figures = [image for image in read(site / page).images if "_images" in (image["src"] or "")]
    assert all(len(image.get("alt") or "") > 40 for image in figures)


@pytest.mark.parametrize("page", PAGES)
def test_a_chapter_can_be_opened_in_colab_and_binder_and_downloaded(site: Path, page: str) -> None:
    there, name = read_address(ROOT), page.replace(".html", ".ipynb")
    repository = f"{there.owner}/{there.name}"
    doors = {
        f"https://colab.research.google.com/github/{repository}/blob/main/book/{name}",
        f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/book/{name}",
        f"_sources/{name}",
    }
    assert doors & set(read(site / page).links) == (doors if page in CHAPTERS else set())


# What the theme draws with letters of a font of icons, which the book leaves out.
LETTERS = """
() => [...document.querySelectorAll('*')].flatMap(element => ['::before', '::after']
  .map(part => getComputedStyle(element, part))
  .filter(style => style.fontFamily.includes('Awesome') && style.display !== 'none'
    && !['none', 'normal', '""'].includes(style.content))
  .map(() => element.outerHTML.slice(0, 120)))
"""

# Ground and width of what is between a cell and its widget.
FRAMES = """
() => [...document.querySelectorAll('.cell_output .text_html > .unet-widget')]
  .map(widget => getComputedStyle(widget.parentElement))
  .map(({ backgroundColor, padding }) => `${backgroundColor} ${padding}`)
"""


class Visit(NamedTuple):
    """What happened while a page was open."""

    requests: list[str]
    complaints: list[str]
    theme: str  # with which it opened
    frames: list[str]  # in that theme
    violations: dict[str, list[str]]  # by theme
    letters: list[str]
    overflow: int
    wide: list[str]
    mathml: list[float]


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve(site) as where:
        yield where


@pytest.fixture(scope="module")
def visit(browser: Any, address: str) -> Any:
    """Open a page on a wide screen in the dark, on a narrow one in the light; remember all."""

    @cache
    def look(name: str, width: int) -> Visit:
        requests: list[str] = []
        complaints: list[str] = []
        violations: dict[str, list[str]] = {}

        def answer(route: Any) -> None:
            requests.append(route.request.url)
            if route.request.url.startswith(address):
                route.continue_()
            else:
                route.abort()

        context = browser.new_context(
            color_scheme="dark" if width == WIDE_SCREEN else "light",
            viewport={"width": width, "height": 900},
            reduced_motion="reduce",
        )
        page = context.new_page()
        context.route("**/*", answer)
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "response", lambda r: complaints.append(f"{r.status} {r.url}") if not r.ok else None
        )
        page.goto(f"{address}/{name}", wait_until="networkidle")
        theme_at_first = page.evaluate("document.documentElement.dataset.theme")
        frames_at_first = page.evaluate(FRAMES)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        # Of cells that are far away and not drawn yet, axe could not tell the colors.
        page.add_style_tag(content=".cell { content-visibility: visible !important }")
        for theme in THEMES if width == WIDE_SCREEN else ():
            # The reader's system decides, also while the page is open.
            page.emulate_media(color_scheme=theme)
            page.wait_for_function(
                "name => document.documentElement.dataset.theme === name", arg=theme
            )
            # Another theme has other colors, and nothing else that axe looks at.
            found = find_violations(page, *(() if theme == "light" else COLORS))
            violations[theme] = [
                f"{rule['id']} ({rule['impact']}): {node['html'][:160]}"
                for rule in found
                for node in rule["nodes"]
            ]
        visit = Visit(
            requests,
            complaints,
            theme_at_first,
            frames_at_first,
            violations,
            page.evaluate(LETTERS),
            page.evaluate("document.documentElement.scrollWidth - innerWidth"),
            page.evaluate(WIDE),
            page.evaluate(
                "[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().width)"
            ),
        )
        context.close()
        return visit

    return look


@pytest.mark.parametrize("page", PAGES)
def test_no_page_asks_another_host_for_anything(visit: Any, address: str, page: str) -> None:
    for width in WIDTHS:
        requests = visit(page, width).requests
        assert requests, "nothing was recorded"
        assert [url for url in requests if not url.startswith(address)] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_page_complains_in_the_console(visit: Any, page: str) -> None:
    for width in WIDTHS:
        assert visit(page, width).complaints == []


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_accessible_in_both_themes(visit: Any, page: str) -> None:
    assert [visit(page, width).theme for width in WIDTHS] == THEMES
    assert visit(page, WIDE_SCREEN).violations == {theme: [] for theme in THEMES}


def test_in_the_dark_no_light_card_frames_a_widget(visit: Any) -> None:
    frames = [frame for page in CHAPTERS for frame in visit(page, WIDE_SCREEN).frames]
    assert len(frames) >= 15
    assert set(frames) == {"rgba(0, 0, 0, 0) 0px"}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_shows_letters_of_a_font_that_is_not_there(visit: Any, page: str) -> None:
    assert visit(page, WIDE_SCREEN).letters == []


@pytest.mark.parametrize("page", PAGES)
def test_a_narrow_screen_scrolls_in_one_direction_only(visit: Any, page: str) -> None:
    seen = visit(page, NARROW_SCREEN)
    assert seen.wide == []
    assert seen.overflow <= 0


def test_mathematics_is_mathml_and_needs_no_script(visit: Any, site: Path) -> None:
    inline, block = visit("formulas.html", WIDE_SCREEN).mathml
    assert inline > 0
    assert block > 0
    links = " ".join(Links(site / "formulas.html").links).lower()
    assert ".js" in links
    assert "mathjax" not in links
    assert "katex" not in links


# ---- widgets on pages without a kernel

#: In the order in which they stand on the page.
PLACED = {
    "index.html": ["shape-explorer"],
    "1-contracting-path.html": ["shape-explorer", "convolution-stepper", "pooling-stepper"],
    "2-bottleneck.html": ["shape-explorer", "receptive-field"],
    "3-expansive-path.html": [
        "transposed-stepper",
        "shape-explorer",
        "training-playback",
        "feature-maps",
    ],
    "4-skip-connections.html": ["shape-explorer", "skip-comparison"],
    "5-the-papers-training.html": ["elastic-playground", "border-weight-lab", "tile-planner"],
    "7-using-it.html": ["live-u", "skip-surgery", "pixel-origin"],
}
WIDGET = ".unet-widget[data-widget]"


def use(widget: Any, hand: str) -> None:
    """Use a widget with keyboard or mouse, and wait until it shows something else."""
    live = widget.locator(".unet-widget-live")
    maps = live.locator("[role=toolbar] button")
    before = live.inner_html()
    if maps.count():
        maps.last.click() if hand == "mouse" else maps.first.press("ArrowRight")
    else:
        slider = live.locator("input[type=range]").first
        at_the_end = slider.evaluate("one => one.value === one.max")
        if hand == "mouse":
            box = slider.bounding_box()
            assert box
            end = 3 if at_the_end else box["width"] - 3
            slider.click(position={"x": end, "y": box["height"] / 2})
        else:
            slider.press("ArrowLeft" if at_the_end else "ArrowRight")
    live.page.wait_for_function(
        "([live, before]) => live.innerHTML !== before",
        arg=[live.element_handle(), before],
        timeout=5_000,
    )


@pytest.mark.parametrize("origin", ["server", "file"])
@pytest.mark.parametrize("name", PLACED)
def test_widgets_answer_mouse_and_keyboard(
    browser: Any, site: Path, address: str, name: str, origin: str
) -> None:
    base = address if origin == "server" else site.as_uri()
    complaints: list[str] = []

    def answer(route: Any) -> None:
        if route.request.url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            complaints.append(route.request.url)
            route.abort()

    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.route("**/*", answer)
    page = context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{base}/{name}")
    widgets = page.locator(WIDGET)
    names = widgets.evaluate_all("all => all.map(one => one.dataset.widget)")
    assert names == PLACED[name]
    for widget in widgets.all():
        for hand in ("keyboard", "mouse"):
            use(widget, hand)
    assert complaints == []
    context.close()


@pytest.mark.parametrize("origin", ["server", "file"])
def test_the_networks_run_on_the_page(browser: Any, site: Path, address: str, origin: str) -> None:
    base = address if origin == "server" else site.as_uri()
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{base}/7-using-it.html")
    live, surgery, origins = (page.locator(WIDGET).nth(k) for k in range(3))
    live.get_by_label("stage", exact=True).select_option("dec1")
    live.get_by_text("One pass").wait_for()
    surgery.get_by_label("skip 1", exact=True).select_option("cut")
    surgery.get_by_text("Runs in this page").wait_for()
    origins.locator("canvas").first.click(position={"x": 40, "y": 40})
    origins.get_by_text("Runs in this page").wait_for()
    # Weights come once for all three, and nothing comes from elsewhere.
    networks = [url for url in asked if "/networks/" in url]
    assert len(networks) == len(set(networks))
    assert all(url.startswith((base, "data:", "blob:")) for url in asked)
    page.close()


@pytest.mark.parametrize("name", PLACED)
def test_without_script_every_widget_shows_figure_and_table(
    browser: Any, address: str, name: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{name}")
    widgets = page.locator(WIDGET).all()
    assert len(widgets) == len(PLACED[name])
    for widget in widgets:
        assert widget.locator(".unet-widget-still :is(img, svg[role=img])").first.is_visible()
        assert widget.locator(".unet-widget-still table").first.is_visible()
        assert widget.locator(".unet-widget-live").count() == 0
    context.close()


def test_widgets_stand_nowhere_else_and_no_page_loads_a_manager(site: Path) -> None:
    for page in PAGES:
        text = (site / page).read_text(encoding="utf-8")
        assert text.count('class="unet-widget"') == len(PLACED.get(page, []))
        scripts = [link for link in read(site / page).links if "unet-widgets.js" in link]
        assert len(scripts) == (page in PLACED)
        for manager in ("html-manager", "embed-amd", "require.js", "widget-state+json"):
            assert manager not in text, f"{page} loads a widget manager"
