"""One front end, three hosts: JupyterLab and Colab, a page without a kernel, one without script.

A widget's output carries three things. The *live view* is what JupyterLab and Colab show. The HTML
is what a built page shows: a figure and a table that say everything without script, and the state
from which ``unet-widgets.js`` brings them to life. The plain text is the table that a terminal
shows, and that nbval compares. HTML and text hold nothing that differs from run to run.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import anywidget

from unet_tutorial._files import write_text_whole

#: The files of the front end, in the order in which they are put together.
SCRIPTS = (
    "core.js",
    "convolution-stepper.js",
    "pooling-stepper.js",
    "transposed-stepper.js",
    "shapes.js",
    "shape-explorer.js",
    "receptive-field.js",
    "feature-maps.js",
    "training-playback.js",
    "skip-comparison.js",
    "border-weight-lab.js",
    "elastic-playground.js",
    "tile-planner.js",
)
#: The files of the widgets in which a network runs: a second script, for the pages that have one.
LIVE_SCRIPTS = ("engine.js", "live.js", "live-u.js", "skip-surgery.js", "pixel-origin.js")
# Files of a site. Not all end in ".js": Jupyter Book puts such files into every page.
SCRIPT, STYLE, LIVE_SCRIPT = "unet-widgets.js", "unet-widgets.css", "unet-live.mjs"


@cache
def script(*names: str) -> str:
    """Return files of the front end as one text, as ``make front-end`` built them from ``js/``.

    Examples
    --------
    >>> "const UNetBook" in script("core.js")
    True
    """
    folder = resources.files("unet_tutorial.widgets") / "built"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def site_script() -> str:
    """Return the front end as the one classic script that the built site loads.

    Examples
    --------
    >>> site_script().startswith("(() => {")
    True
    """
    boot = (
        "UNetBook.base = document.currentScript?.src || location.href;\n"
        "const boot = () => UNetBook.boot();\n"
        'if (document.readyState !== "loading") boot();\n'
        'else document.addEventListener("DOMContentLoaded", boot);\n'
        "globalThis.UNetBook = UNetBook;"
    )
    return f"(() => {{\n{script(*SCRIPTS)}\n{boot}\n}})();\n"


def live_script() -> str:
    """Return the engine and the widgets in which a network runs, as a second classic script.

    Examples
    --------
    >>> "UNetBook.engine" in live_script()
    True
    """
    return f"(() => {{\n{script(*LIVE_SCRIPTS)}\n}})();\n"


def network_script(name: str, weights: bytes) -> str:
    r"""Return the file of a network as a script, which a page loads from a disk too.

    Examples
    --------
    >>> network_script("tiny", b"abc")
    'UNetBook.arrive("tiny","YWJj");\n'
    """
    return f'UNetBook.arrive("{name}","{base64.b64encode(weights).decode()}");\n'


def write_site(folder: str | Path, networks: Mapping[str, bytes] | None = None) -> None:
    """Write what pages with widgets load: scripts, style, and the networks that run in them.

    Parameters
    ----------
    folder : str or Path
        It is made if it is missing.
    networks : mapping of str to bytes, optional
        By name: files as `unet_tutorial.export.write_network` writes them.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_site(folder, {"tiny": b"abc"})
    ...     sorted(file.name for file in Path(folder).rglob("*.*"))
    ['tiny.mjs', 'unet-live.mjs', 'unet-widgets.css', 'unet-widgets.js']
    """
    folder = Path(folder)
    (folder / "networks").mkdir(parents=True, exist_ok=True)
    write_text_whole(folder / SCRIPT, site_script())
    write_text_whole(folder / LIVE_SCRIPT, live_script())
    write_text_whole(folder / STYLE, style())
    for name, weights in (networks or {}).items():
        write_text_whole(folder / "networks" / f"{name}.mjs", network_script(name, weights))


def style() -> str:
    """Return the style sheet of all widgets.

    Examples
    --------
    >>> ".unet-widget" in style()
    True
    """
    return script("widgets.css")


class BookWidget(anywidget.AnyWidget):
    """Base of the book's widgets.

    A subclass names its front end and says what a page without script shows. Its traits that are
    tagged ``sync=True`` are its state, in all three hosts.

    Attributes
    ----------
    front_end : str
        Name under which the JavaScript registers the widget.
    scripts : tuple of str
        Files that it needs, ``core.js`` first.
    module : str
        Script of the built site that brings them; by default the one for all widgets.
    """

    front_end: ClassVar[str] = ""
    scripts: ClassVar[tuple[str, ...]] = ("core.js",)
    module: ClassVar[str] = ""

    # Colab's ipywidgets 7.7 displays by this method, and would pass the bundle below over.
    _ipython_display_ = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Put the module together: the shared files, the widget's own, and an export."""
        # Adding traits to an instance makes a subclass behind the scenes: it names nothing itself.
        if "front_end" in cls.__dict__:
            export = (
                "export default { render({ model, el }) {\n"
                '  el.classList.add("unet-widget-live");\n'
                f'  return UNetBook.widgets["{cls.front_end}"](model, el);\n'
                "} };\n"
            )
            cls._esm = f"{script(*cls.scripts)}\n{export}"
            cls._css = style()
        super().__init_subclass__(**options)

    def still(self) -> str:
        """Return the figure and the table, as HTML, that a page without script shows."""
        raise NotImplementedError

    def table(self) -> str:
        """Return the table that a reader in a terminal wants."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return what the front end needs to begin: the widget's own synchronized traits."""
        common = _common_traits()
        return {
            name: getattr(self, name)
            for name in sorted(self.trait_names(sync=True))
            if name not in common and not name.startswith("_")
        }

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data["text/plain"] = self.table()
        data["text/html"] = self.static_html()
        return data, metadata

    def static_html(self) -> str:
        """Return what a page without a kernel shows."""
        still = self.still()
        # "</" would end the script element.
        state = json.dumps(self.state(), ensure_ascii=False, sort_keys=True).replace("</", "<\\/")
        # A picture that stands in both is stored once: the state names the still one by number.
        for number, address in enumerate(re.findall(r'<img [^>]*?src="([^"]*)"', still)):
            state = state.replace(f'"{address}"', f'"img:{number}"')
        module = f' data-module="{self.module}"' if self.module else ""
        return (
            f'<div class="unet-widget" data-widget="{html.escape(self.front_end)}"{module}>\n'
            f'<div class="unet-widget-still">\n{still}\n</div>\n'
            f'<script type="application/json">{state}</script>\n</div>'
        )


@cache
def _common_traits() -> frozenset[str]:
    """Name the traits that every widget has: layout, tooltip and the like."""
    import ipywidgets

    return frozenset(ipywidgets.DOMWidget.class_trait_names())
