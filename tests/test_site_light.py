"""The weight of the pages, their print, and what others are told about them."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import ROOT, QuietHandler, serve
from PIL import Image
from test_site import CHAPTERS, WRITTEN

PREFIX = "/inside-unet"
PACKED = ("text/", "application/javascript", "application/json", "image/svg")


class PagesHandler(QuietHandler):
    """Serves a site as GitHub does: compressed, below the repository's name, with its own 404."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - the base class calls it by this name
        path = urlsplit(self.path).path.removeprefix(PREFIX)
        file = Path(self.directory) / path.lstrip("/")
        file = file / "index.html" if file.is_dir() else file
        code = 200 if file.is_file() else 404
        file = file if code == 200 else Path(self.directory) / "404.html"
        kind, body = self.guess_type(str(file)), file.read_bytes()
        self.send_response(code)
        if kind.startswith(PACKED):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serve(site, PagesHandler) as where:
        yield f"{where}{PREFIX}"


# ---- weight


@pytest.mark.parametrize("name", ["index.html", "4-skip-connections.html", "7-using-it.html"])
def test_a_page_asks_for_few_and_small_files(browser: Any, address: str, name: str) -> None:
    context = browser.new_context(viewport={"width": 412, "height": 823})
    page = context.new_page()
    wire = context.new_cdp_session(page)
    wire.send("Network.enable")
    asked, sizes = [], []
    wire.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(f"{address}/{name}", wait_until="networkidle")
    context.close()
    files = [url for url in asked if url.startswith("http")]
    # A plain page of Jupyter Book: 37 files, 1.6 MB; 0.9 MB of them for icons and styles.
    assert 5 <= len(files) <= 22, files
    assert sum(sizes) < 500_000
    heavy = ("fontawesome", "webfonts", "searchindex", "thebe", "mathjax")
    assert [url for url in files if any(word in url for word in heavy)] == []


def test_icons_are_drawn_in_the_page(site: Path) -> None:
    for name in WRITTEN:
        text = (site / name).read_text(encoding="utf-8")
        assert text.count('<svg class="icon') > 8
        assert not re.search(r'<(i|span) class="[^"]*\bfa', text), name


def test_one_style_sheet_holds_what_pages_need_and_no_more(site: Path) -> None:
    sheet = (site / "_static" / "book-all.css").read_text(encoding="utf-8")
    whole = (site / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    for used in (".bd-article", ".prev-next-area", ".highlight .kn", ".dropdown-menu.show"):
        assert used in sheet, used
    for unused in (".fa-rocket", ".carousel-control-next", ".accordion-button", "@font-face"):
        assert unused in whole
        assert unused not in sheet, unused
    assert len(gzip.compress(sheet.encode())) < 30_000
    assert "Licensed under MIT" in sheet  # the notices of what is in it stay


def test_code_is_in_pieces_only_where_it_has_another_color(
    browser: Any, site: Path, address: str
) -> None:
    for name in CHAPTERS:
        text = (site / name).read_text(encoding="utf-8")
        assert '<span class="kn">import</span> torch' in text or name == "sources.html"
        assert not re.search(r'<span class="([npw]|pre)">', text), name
    page = browser.new_page()
    page.goto(f"{address}/4-skip-connections.html", wait_until="load")
    for theme, color in (("dark", "rgb(248, 248, 242)"), ("light", "rgb(8, 8, 8)")):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        shown = page.locator("article div.highlight pre").evaluate_all(
            "all => [...new Set(all.map(one => getComputedStyle(one).color))]"
        )
        assert shown == [color]  # as the sheet of Pygments has it for names, signs and spaces
    page.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_have_a_size_and_wait_for_the_reader(site: Path, name: str) -> None:
    text = (site / name).read_text(encoding="utf-8")
    figures = re.findall(r'<img\b[^>]*src="_images/[^>]*>', text)
    assert figures or name == "sources.html"
    for number, figure in enumerate(figures):
        assert re.search(r' width="\d+" height="\d+"', figure), figure
        assert (' loading="lazy"' in figure) == (number > 0)


def test_boxes_that_scroll_are_measured_when_they_come_near(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 700})
    page.goto(f"{address}/4-skip-connections.html", wait_until="load")
    boxes = page.locator("article div.highlight pre").all()
    # Before it is measured every box can be reached.
    assert boxes[-1].get_attribute("tabindex") == "0"
    for box in boxes[::4]:
        box.scroll_into_view_if_needed()
        page.wait_for_function(
            "one => (one.tabIndex === 0) === (one.scrollWidth > one.clientWidth"
            " || one.scrollHeight > one.clientHeight)",
            arg=box.element_handle(),
        )
    assert {box.evaluate("one => one.tabIndex") for box in boxes[::4]} == {0, -1}
    page.close()


def lighthouse() -> str:
    found = os.environ.get("LIGHTHOUSE") or shutil.which("lighthouse")
    local = ROOT / "_build" / "lighthouse" / "node_modules" / ".bin" / "lighthouse"
    return found or (str(local) if local.exists() else "")


@pytest.mark.alone
@pytest.mark.flaky(reruns=2)  # other work on the machine makes a page slower, never faster
@pytest.mark.skipif(
    not lighthouse(), reason="no lighthouse is installed: `make lighthouse` does it"
)
@pytest.mark.parametrize("name", ["index.html", "4-skip-connections.html", "7-using-it.html"])
def test_lighthouse_is_content(browser: Any, address: str, name: str, tmp_path: Path) -> None:
    chrome = shutil.which("chromium") or browser.browser_type.executable_path
    file = tmp_path / "report.json"
    subprocess.run(
        [
            *(lighthouse(), f"{address}/{name}", "--quiet", "--output=json"),
            *(f"--output-path={file}", "--chrome-flags=--headless=new --no-sandbox"),
            "--only-categories=performance,accessibility,best-practices",
        ],
        check=True,
        env={**os.environ, "CHROME_PATH": chrome},
        timeout=200,
    )
    report = json.loads(file.read_text(encoding="utf-8"))
    scores = {key: value["score"] or 0.0 for key, value in report["categories"].items()}
    print(name, scores, "speed of this machine:", report["environment"]["benchmarkIndex"])
    assert scores["performance"] >= 0.9
    assert scores["accessibility"] == 1.0
    assert scores["best-practices"] >= 0.95


# ---- print


def test_paper_shows_text_figures_and_what_is_folded(browser: Any, address: str) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 680, "height": 990})
    page = context.new_page()
    page.goto(f"{address}/4-skip-connections.html", wait_until="networkidle")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    for hidden in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer"):
        assert not page.locator(hidden).first.is_visible(), hidden
    folds = page.locator("article details")
    assert folds.count() >= 3
    closed = "document.querySelectorAll('article details:not([open])').length"
    assert page.evaluate(closed) == 0
    widgets = page.locator(".unet-widget")
    for widget in widgets.all():
        assert widget.locator(".unet-widget-still table").first.is_visible()
        assert not widget.locator(".unet-widget-live").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(closed) == folds.count()
    context.close()


# ---- search


def test_search_finds_a_page(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=bottleneck")
    page.locator("#search-results ul.search li a").first.wait_for()
    found = page.locator("#search-results ul.search li a").evaluate_all("a => a.map(x => x.href)")
    assert any("2-bottleneck.html" in link for link in found)
    page.close()


# ---- what others are told


def meta(page: str) -> dict[str, str]:
    return dict(re.findall(r'<meta (?:name|property)="([^"]*)" content="([^"]*)" />', page))


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "formulas.html"])
def test_a_page_passed_on_has_a_card(site: Path, name: str) -> None:
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    owner, repository = urlsplit(url).path.strip("/").split("/")
    base = f"https://{owner}.github.io/{repository}/"
    text = (site / name).read_text(encoding="utf-8")
    told = meta(text)
    assert 40 < len(told["description"]) <= 201
    assert told["og:description"] == told["description"]
    assert told["og:title"] in text
    assert told["og:url"] == f"{base}{name}"
    assert f'<link rel="canonical" href="{base}{name}" />' in text
    assert told["twitter:card"] == "summary_large_image"
    assert told["og:image"].startswith(base)
    with Image.open(site / told["og:image"].removeprefix(base)) as card:
        assert card.size == (1200, 630)
        assert len(card.getcolors() or ()) > 8  # letters and a U, not an empty sheet


def test_cards_of_chapters_show_the_u_as_far_as_it_is_built(site: Path) -> None:
    blue = []
    for name in CHAPTERS[:5]:
        with Image.open(site / "_static" / "cards" / name.replace(".html", ".png")) as card:
            pixels = card.convert("RGB").crop((0, 200, 1200, 630)).getcolors(1_000_000) or []
        blue.append(sum(n for n, (r, _, b) in pixels if 100 < r < 180 and b > 200))
    assert blue[0] < blue[1] < blue[2] < blue[3]


def test_the_mark_comes_as_a_picture_too(site: Path) -> None:
    for file, side in (("favicon-32.png", 32), ("apple-touch-icon.png", 180)):
        with Image.open(site / "_static" / file) as icon:
            assert icon.size == (side, side)
            assert len(icon.getcolors() or ()) > 3
        assert f"_static/{file}" in (site / "index.html").read_text(encoding="utf-8")


def test_an_address_that_leads_nowhere_leads_back(browser: Any, address: str) -> None:
    complaints: list[str] = []
    page = browser.new_page()
    page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if not r.ok else None)
    asked = f"{address}/no/such/page.html"
    page.goto(asked, wait_until="networkidle")
    assert complaints == [f"404 {asked}"]  # its own style and scripts are found from there
    assert page.locator("article h1").inner_text().startswith("There is no such page")
    page.get_by_role("link", name="first page").click()
    assert page.url == f"{address}/index.html"
    page.close()
