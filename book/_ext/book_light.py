"""Light pages: what the theme brings for every book is cut down to what this one shows.

A plain page of Jupyter Book loads 1.5 MB of icons to draw sixteen of them, 0.6 MB of styles, and
an index for a search that nobody has begun. After the pages are written, this extension

- draws each icon in the page, from the theme's own icon file, and leaves that file out;
- writes one style sheet, without the rules that nothing on any page can match;
- takes text out of elements that change nothing about it, a third of those of a chapter;
- lets scripts wait until the page stands, and leaves out those that the page has no use for;
- says how large figures are, and lets those further down wait until they are scrolled to.

A later build changes only some pages, so everything here may meet a page that is light already.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pydata_sphinx_theme
import tinycss2
from PIL import Image
from sphinx.application import Sphinx

ICON_FILE = "theme/pydata_sphinx_theme/static/scripts/fontawesome.js"
FAMILIES = {"fas": "solid", "fa-solid": "solid", "far": "regular", "fa-regular": "regular"}
FAMILIES |= {"fab": "brands", "fa-brands": "brands"}
ICON = re.compile(r'<(i|span) class="([^"]*\bfa[srb]? ?[^"]*)"([^>]*)>\s*</\1>')
SHEET = "_static/book-all.css"
SCRIPT_TAG = re.compile(r"[ \t]*<script\b([^>]*)>(.*?)</script>\n?", re.DOTALL)
LINK_TAG = re.compile(r"[ \t]*<link\b[^>]*>\n?")
#: Widgets that show their pictures and do not read them.
PICTURES = "_static/pictures"
SHOWN_ONLY = ("skip-comparison", "training-playback")
#: Boxes that may scroll, as the theme's script looks for them.
BOX_TAG = re.compile(
    r"(<pre(?: (?!tabindex)[^<>]*)?"
    r'|<div class="(?:pst-scrollable-table-container|output(?: [^"]*)?)")>'
)
#: The side with name, search and chapters belongs to no landmark in the theme.
SIDE, NAMED_SIDE = '<div id="pst-primary-sidebar"', '<div role="complementary" aria-label="Book" id'
IMAGE_TAG = re.compile(r"<img\b[^>]*>")
#: Scripts that only some pages need, each with what shows the need.
NEEDED_BY = {
    "searchtools.js": 'id="search-results"',
    "language_data.js": 'id="search-results"',
    "searchindex.js": 'id="search-results"',
    "clipboard.min.js": '<div class="highlight',
    "copybutton.js": '<div class="highlight',
    "design-tabs.js": "sd-tab-set",
    "togglebutton.js": r'class="(?:[^"]* )?(?:toggle|dropdown admonition|admonition dropdown)[ "]',
}


# ---- icons


@cache
def read_icons() -> dict[tuple[str, str], tuple[int, int, str]]:
    """Read the outlines of all icons from the theme's script: (family, name) -> (w, h, path)."""
    text = (Path(pydata_sphinx_theme.__file__).parent / ICON_FILE).read_text(encoding="utf-8")
    entry = re.compile(r'[{,]"?([\w-]+)"?:\[(\d+),(\d+),\[([^\]]*)\],"[0-9a-f]+","([^"]*)"\]')
    icons, begin = {}, 0
    # A family's icons stand before the call that registers them under both of its names.
    for end in re.finditer(r'\("fa[brs]",\w+\),\w+\("fa-(brands|regular|solid)"', text):
        for name, width, height, others, path in entry.findall(text, begin, end.start()):
            for known in (name, *re.findall(r'"([\w-]+)"', others)):
                icons.setdefault((end[1], known), (int(width), int(height), path))
        begin = end.end()
    return icons


def draw_icon(found: re.Match[str]) -> str:
    """Write an icon's outline in the place of the element that a script would have replaced."""
    classes = found[2].split()
    family = next((FAMILIES[name] for name in classes if name in FAMILIES), "")
    names = [name.removeprefix("fa-") for name in classes]
    name = next((name for name in names if (family, name) in read_icons()), None)
    if name is None:
        return found[0]
    width, height, path = read_icons()[family, name]
    rest = [one for one in classes if one not in FAMILIES and one != f"fa-{name}"]
    return (
        f'<svg class="{" ".join(["icon", *rest])}"{found[3]} viewBox="0 0 {width} {height}" '
        f'aria-hidden="true" focusable="false"><path fill="currentColor" d="{path}"/></svg>'
    )


# ---- styles


def words_of(texts: Iterable[str]) -> tuple[set[str], tuple[str, ...]]:
    """List all that could be the name of a class, and the beginnings that scripts may complete."""
    words = {word for text in texts for word in re.findall(r"[\w-]+", text)}
    return words, tuple(word for word in words if word.endswith("-") and len(word) > 3)


def used_selectors(prelude: list[Any], may_occur: Callable[[str], bool]) -> str:
    """Leave out the selectors of a rule that name a class or an id which occurs nowhere.

    What stands in parentheses is not looked at: ``:not(.class)`` matches where there is none.
    """
    kept, one, named = [], [], []
    for token in [*prelude, None]:
        if token is None or token == ",":
            if all(may_occur(name) for name in named):
                kept.append(tinycss2.serialize(one).strip())
            one, named = [], []
            continue
        if token.type == "hash" or (token.type == "ident" and one and one[-1] == "."):
            named.append(token.value)
        one.append(token)
    return ",".join(kept)


def used_rules(rules: list[Any], may_occur: Callable[[str], bool]) -> str:
    """Write the rules of a sheet that something on the pages may match, and its licenses."""
    text = []
    for rule in rules:
        if rule.type == "comment" and rule.value.startswith("!"):
            text.append(f"/*{rule.value}*/")
        elif rule.type == "qualified-rule":
            selectors = used_selectors(rule.prelude, may_occur)
            if selectors:
                text.append(f"{selectors}{{{tinycss2.serialize(rule.content).strip()}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
            inner = used_rules(tinycss2.parse_rule_list(rule.content), may_occur)
            if inner:
                prelude = tinycss2.serialize(rule.prelude).strip()
                text.append(f"@{rule.at_keyword} {prelude}{{{inner}}}")
        elif rule.type == "at-rule" and not (
            rule.lower_at_keyword == "charset"
            or "Font\\ Awesome" in (body := tinycss2.serialize(rule.content or []))
            or "Font Awesome" in body
        ):
            text.append(rule.serialize())
        elif rule.type == "error":
            raise ValueError(f"a style sheet cannot be read: {rule.message}")
    return "".join(text)


def read_sheet(file: Path) -> list[tuple[Path, list[Any]]]:
    """Read the rules of a sheet, those of the sheets that it imports first."""
    rules = tinycss2.parse_stylesheet(file.read_text(encoding="utf-8"))
    imports = [r for r in rules if r.type == "at-rule" and r.lower_at_keyword == "import"]
    read = []
    for rule in imports:
        address = next(token.value for token in rule.prelude if token.type in ("string", "url"))
        read += read_sheet(file.parent / address)
    return [*read, (file, [rule for rule in rules if rule not in imports])]


def one_sheet(sheets: list[Path], texts: Iterable[str], folder: Path) -> str:
    """Put style sheets together, without what none of the texts (pages and scripts) can use.

    Raises
    ------
    ValueError
        If a sheet cannot be parsed, or points to a file that is not there.
    """
    words, begun = words_of(texts)

    @cache
    def may_occur(name: str) -> bool:
        return name in words or name.startswith(begun)

    whole = []
    for file, rules in (pair for sheet in sheets for pair in read_sheet(sheet)):

        def move(found: re.Match[str], file: Path = file) -> str:
            if found[1].startswith(("data:", "#")):
                return found[0]
            target = file.parent / found[1]
            if not target.is_file():
                raise ValueError(f"{file.name} points to {found[1]}, which is not there")
            return f'url("{os.path.relpath(target, folder)}")'

        whole.append(
            re.sub(r"url\(\s*[\"']?([^)\"']*)[\"']?\s*\)", move, used_rules(rules, may_occur))
        )
    return "".join(whole)


# ---- pages


def link_sheets(page: str, address: str) -> tuple[str, list[str]]:
    """Let a page ask for one sheet in the place of many; give the page and the files it asked for.

    The sheet of the widgets stays by itself: pages without a widget do not need it.
    """
    asked: list[str] = []

    def instead(found: re.Match[str]) -> str:
        if 'rel="preload"' in found[0] and 'as="script"' in found[0]:
            return ""  # the scripts wait anyway, and the style must not wait for them
        link = re.search(r'href="([^"?]*_static/[^"?]*)', found[0])
        if 'rel="stylesheet"' not in found[0] or not link or "unet-" in link[1]:
            return found[0]
        prefix, file = link[1].split("_static/", 1)
        asked.append(f"_static/{file}")
        if len(asked) > 1:
            return ""
        return f'    <link rel="stylesheet" href="{prefix}{address}" />\n'

    return LINK_TAG.sub(instead, page), asked


def defer_scripts(page: str, options: str) -> str:
    """Let scripts wait until the page stands, in their order; leave out those without a use."""
    seen: set[str] = set()

    def instead(found: re.Match[str]) -> str:
        attributes, body = found[1], found[2]
        source = re.search(r'\bsrc="([^"]*)"', attributes)
        if not source:
            empty = body.strip().startswith(("let toggle", "var togglebutton"))
            return "" if empty and not needed("togglebutton.js", page) else found[0]
        address = source[1]
        name = address.split("?")[0].rsplit("/", 1)[-1]
        if name == "documentation_options.js":  # what stands in the page after it needs it at once
            return f"    <script>{options.strip()}</script>\n"
        if name in seen or name == "fontawesome.js" or not needed(name, page):
            return ""
        seen.add(name)
        if "://" in address or 'type="module"' in attributes or "defer" in attributes:
            return found[0]
        return found[0].replace("<script", "<script defer", 1)

    return SCRIPT_TAG.sub(instead, page)


def let_boxes_wait(folder: Path) -> None:
    """Let the theme measure a box that may scroll when the reader comes near it.

    The theme measures all of them when a page has loaded, and writes in between, so that the whole
    page is laid out again and again: a third of a second of work on a telephone. Another release
    of the theme may do it another way; then nothing is changed: pages are slower, not wrong.
    """
    file = folder / "_static" / "scripts" / "pydata-sphinx-theme.js"
    text = file.read_text(encoding="utf-8")
    each = r"\.forEach\((\w)=>\{(\1\.tabIndex=\1\.scrollWidth>[^{}]*)\}\)"
    file.write_text(re.sub(each, r".forEach(\1=>{bookNear(\1,()=>{\2})})", text), encoding="utf-8")


def plain_tokens(sheet: str) -> set[str]:
    """List the kinds of tokens that a sheet of Pygments shows, in each theme, as their block."""
    rule = re.compile(r'\[data-theme="(\w+)"\] \.highlight(?: \.(\w+))? \{([^}]*)\}')
    themes: dict[str, dict[str, str]] = {}
    for theme, token, style in rule.findall(sheet):
        themes.setdefault(theme, {})[token] = style
    plain = []
    for styles in themes.values():
        own = re.search(r"(?<![\w-])color: #\w+", styles.get("", ""))
        plain.append({token for token, style in styles.items() if own and style.strip() == own[0]})
    return set.intersection(*plain) if plain else set()


def unwrap(page: str, tokens: set[str]) -> str:
    """Leave out the elements around tokens of these kinds, and around words of inline code."""
    for kinds in ("pre", "|".join(sorted(tokens))):
        if kinds:
            page = re.sub(rf'<span class="(?:{kinds})">([^<]*)</span>', r"\1", page)
    return page


def needed(script: str, page: str) -> bool:
    """Tell whether a page shows anything that the script works on."""
    return script not in NEEDED_BY or bool(re.search(NEEDED_BY[script], page))


def reach_boxes(page: str) -> str:
    """Let the keyboard reach every box that may scroll, until it is measured."""
    return BOX_TAG.sub(r'\1 tabindex="0">', page)


def size_images(page: str, folder: Path) -> str:
    """Write the size of every figure into the page, so that nothing moves when it arrives.

    All but the first wait until the reader comes near them.
    """
    figures = 0

    def instead(found: re.Match[str]) -> str:
        nonlocal figures
        tag = found[0]
        source = re.search(r'src="([^"?]*)"', tag)
        ours = source and ("_images/" in source[1] or PICTURES in source[1])
        if not source or not ours or " loading=" in tag:
            return tag
        figures += 1
        size = ""
        file = folder / unescape(source[1])
        if not re.search(r"\b(width|height)=", tag) and file.suffix != ".svg":
            with Image.open(file) as image:
                size = f' width="{image.width}" height="{image.height}"'
        wait = "lazy" if figures > 1 else "eager"
        return f'<img loading="{wait}" decoding="async"{size}{tag[4:]}'

    return IMAGE_TAG.sub(instead, page)


def move_pictures(page: str, folder: Path) -> str:
    """Put pictures that a widget only shows into files, which come when they are looked at.

    Other widgets read the pixels of theirs, which browsers forbid for files of a page from disk.
    """

    def widget(found: re.Match[str]) -> str:
        return re.sub(r"data:image/(png|jpeg);base64,([\w+/=]+)", picture, found[0])

    def picture(found: re.Match[str]) -> str:
        data = base64.b64decode(found[2])
        name = f"{PICTURES}/{hashlib.sha256(data).hexdigest()[:32]}.{found[1]}"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return name

    names = "|".join(SHOWN_ONLY)
    return re.sub(
        rf'<div class="unet-widget" data-widget="(?:{names})".*?</script>', widget, page, flags=re.S
    )


def lighten(app: Sphinx, problem: Exception | None) -> None:
    """Go through all pages once they are written."""
    if problem or app.builder.name not in ("html", "dirhtml"):
        return
    folder = Path(app.outdir)
    options = (folder / "_static" / "documentation_options.js").read_text(encoding="utf-8")
    plain = plain_tokens((folder / "_static" / "pygments.css").read_text(encoding="utf-8"))
    pages, sheets = {}, []
    for file in sorted(folder.glob("*.html")):
        page = ICON.sub(draw_icon, file.read_text(encoding="utf-8"))
        page = page.replace(SIDE, f'{NAMED_SIDE}="pst-primary-sidebar"')
        page = unwrap(reach_boxes(defer_scripts(page, options)), plain)
        page = size_images(move_pictures(page, folder), folder)
        _, asked = link_sheets(page, SHEET)
        sheets += [name for name in asked if name not in sheets and name != SHEET]
        pages[file] = page
    let_boxes_wait(folder)
    if sheets:
        scripts = [
            one
            for one in folder.glob("_static/**/*.js")
            if one.name != "fontawesome.js" and any(one.name in page for page in pages.values())
        ]
        texts = [*pages.values(), *(one.read_text(encoding="utf-8") for one in scripts)]
        whole = one_sheet([folder / name for name in sheets], texts, (folder / SHEET).parent)
        (folder / SHEET).write_text(whole, encoding="utf-8")
    version = hashlib.sha256((folder / SHEET).read_bytes()).hexdigest()[:8]
    for file, page in pages.items():
        file.write_text(link_sheets(page, f"{SHEET}?v={version}")[0], encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Run after everything else is written."""
    app.connect("build-finished", lighten, priority=900)
    extensions = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return {
        "version": "1",
        "env_version": zlib.crc32(extensions),  # other extensions: all pages are made anew
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
