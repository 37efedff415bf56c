"""What several test files share: the checkout and small books to try the runner on."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import yaml
from filelock import FileLock

from unet_tutorial.chapters import build_site

ROOT = Path(__file__).resolve().parent.parent
CI = bool(os.environ.get("CI"))


def load_script(name: str) -> Any:
    """Import a script of the repository."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def cpu_seconds(*ways: Callable[[], object], rounds: int = 7) -> list[float]:
    """Measure what each way takes of one core at least, by turns: machines change their pace."""
    least = [float("inf")] * len(ways)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(rounds):
        for k, way in enumerate(ways):
            start = time.process_time()
            way()
            least[k] = min(least[k], time.process_time() - start)
    torch.set_num_threads(threads)
    return least


MakeBook = Callable[..., Path]


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, where a shell runs them in the background.

    There Ctrl-C is ignored, and every process that is started inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_book(tmp_path: Path) -> MakeBook:
    """Write a checkout with one chapter per keyword; a chapter is a list of code cells."""

    def make(**chapters: list[str]) -> Path:
        root = tmp_path / "checkout"
        (root / "book").mkdir(parents=True, exist_ok=True)
        (root / "unet_tutorial").mkdir(exist_ok=True)
        (root / "unet_tutorial" / "unet.py").write_text("DEPTH = 4\n")
        (root / "constraints.txt").write_text("torch==2.13.0\n")
        (root / "_toc.yml").write_text(
            "format: jb-book\nroot: index\nchapters:\n"
            + "".join(f"  - file: {name}\n" for name in chapters)
        )
        for name, cells in chapters.items():
            notebook = nbformat.v4.new_notebook()
            parameters = nbformat.v4.new_code_cell(
                'profile = "auto"\ndataset = "auto"\nseed = 0', metadata={"tags": ["parameters"]}
            )
            notebook.cells = [parameters, *(nbformat.v4.new_code_cell(cell) for cell in cells)]
            nbformat.write(notebook, root / "book" / f"{name}.ipynb")
        return root

    return make


FORMULAS = """# Formulas

Softmax is $p_k = e^{a_k} / \\sum_j e^{a_j}$ at every pixel.

$$
E = \\sum_{x \\in \\Omega} w(x) \\log p_{\\ell(x)}(x)
$$
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the stored outputs, and one more page that holds formulas."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        return make_site(tmp_path_factory.mktemp("site"))
    # Workers side by side share one: the first one builds it, the others wait.
    copy = tmp_path_factory.getbasetemp().parent / "site"
    with FileLock(f"{copy}.lock"):
        built = copy / "_build" / "html"
        return built if (built / "index.html").is_file() else make_site(copy)


def make_site(copy: Path) -> Path:
    """Copy the book, add the page of formulas, build."""
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "book", copy / "book", ignore=left_out, dirs_exist_ok=True)
    shutil.copy(ROOT / "_config.yml", copy)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"][-1]["chapters"].append({"file": "formulas"})
    (copy / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (copy / "book" / "formulas.md").write_text(FORMULAS, encoding="utf-8")
    return build_site(copy).parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for one file at a time: an open Playwright would disturb nbval's event loop."""
    api = pytest.importorskip("playwright.sync_api")
    # First the one that has no window: toolbars of its own cost the others half of the time.
    names = (
        "chromium-headless-shell",
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    )
    found = next((path for path in map(shutil.which, names) if path), None)
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        if not found and not os.path.exists(own):
            message = "no Chromium: install it, or run `playwright install chromium`"
            pytest.fail(message) if CI else pytest.skip(message)
        options = ["--no-sandbox", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(
            executable_path=found or own, args=[*options, "--disable-component-update"]
        )
        yield browser
        browser.close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path, handler: type[QuietHandler] = QuietHandler) -> Iterator[str]:
    """Serve a folder on this machine; give the address."""
    answer = partial(handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# What sticks out of the window and does not scroll in a box of its own.
WIDE = """
() => {
  const clipped = element => {
    for (let box = element.parentElement; box; box = box.parentElement)
      if (box !== document.body && box !== document.documentElement
          && getComputedStyle(box).overflowX !== 'visible') return true;
    return false;
  };
  return [...document.querySelectorAll(document.querySelector('article') ? 'article *' : 'main *')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !clipped(e))
    .map(e => e.outerHTML.slice(0, 120));
}
"""


OpenWidget = Callable[..., Any]


@pytest.fixture
def open_widget(browser: Any, tmp_path: Path) -> Iterator[OpenWidget]:
    """Open a widget as a page from disk: no server, no kernel, no other host."""
    from unet_tutorial.widgets import site_script, style, write_site

    contexts = []

    def open_page(
        widget: Any,
        *,
        theme: str = "light",
        width: int = 900,
        script: bool = True,
        motion: str = "reduce",
        hash: str = "",
        init: str = "",
        policy: str = "",
        address: str = "",
    ) -> Any:
        file = tmp_path / "widget.html"
        if hasattr(widget, "networks") and hasattr(widget, "weights"):
            # As if they were the book's own: the files lie beside the page.
            widget.networks = [{**entry, "site": True} for entry in widget.networks]
            write_site(tmp_path, widget.weights)
        file.write_text(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>widget</title>'
            f'{policy}<meta name="viewport" content="width=device-width"><style>'
            f":root {{ color-scheme: light dark }} body {{ margin: 0.5rem }} {style()}"
            "</style></head>"
            f"<body><main><h1>widget</h1>{widget.static_html()}</main>"
            f"<script>{site_script()}</script></body></html>",
            encoding="utf-8",
        )
        context = browser.new_context(
            color_scheme=theme,
            viewport={"width": width, "height": 900},
            reduced_motion=motion,
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        if init:
            page.add_init_script(init)
        page.set_default_timeout(10_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                page.complaints.append(request.url)
                if not request.url.startswith(("file:", "data:", "blob:"))
                else None
            ),
        )
        page.goto((address or file.as_uri()) + hash)
        return page

    yield open_page
    for context in contexts:
        context.close()
