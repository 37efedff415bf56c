"""Widgets with Python behind them: a real JupyterLab, and an output frame as Colab has it."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import ipywidgets
import nbformat
import pytest
from conftest import ROOT
from IPython.core.interactiveshell import InteractiveShell
from test_widgets import NAMES, act, make

from unet_tutorial.widgets import LiveU, ShapeExplorer

CELLS = [
    "from unet_tutorial.widgets import ShapeExplorer\nexplorer = ShapeExplorer()\nexplorer",
    "print('depth is', explorer.depth)",
    "explorer.set_trait('depth', 2)\nprint('set from Python')",
    "import numpy as np\nfrom unet_tutorial import UNet\nfrom unet_tutorial.widgets import live\n"
    "live(UNet(1, 2, base_channels=2, depth=2), np.zeros((64, 64)))",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab server of its own, with one notebook."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "widgets.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    options += ["--IdentityProvider.token=", "--ServerApp.password=", f"--notebook-dir={folder}"]
    options += [
        "--LabApp.collaborative=False",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env=environment,
        stdout=(folder / "server.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2)
            break
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.5)
    else:
        server.kill()
    if server.poll() is not None:
        pytest.fail("JupyterLab did not start:\n" + (folder / "server.log").read_text()[-2000:])
    yield address
    server.terminate()
    server.wait(timeout=30)


def test_in_jupyterlab_hand_and_python_move_the_same_network(lab: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.goto(f"{lab}/lab/tree/widgets.ipynb?reset")
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    cells.first.wait_for(timeout=90_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=90_000)

    def run(number: int) -> None:
        cells.nth(number).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")

    run(0)
    live = page.locator(".unet-widget-live")
    live.get_by_text("31,030,658 parameters").first.wait_for(timeout=90_000)
    slider = live.get_by_role("slider", name="depth")
    slider.press("ArrowRight")
    live.get_by_text("32 × 16 × 16").or_(live.get_by_text("All: ")).first.wait_for()
    run(1)
    page.get_by_text("depth is 5").wait_for(timeout=30_000)
    run(2)
    page.get_by_text("set from Python").last.wait_for(timeout=30_000)
    expected = f"{ShapeExplorer(depth=2).trace().parameters:,}"
    live.get_by_text(f"All: {expected}").first.wait_for(timeout=30_000)
    assert slider.input_value() == "2"

    # The kernel hands the weights over, and the network runs in the page.
    run(3)
    page.get_by_text("loads at your first touch").wait_for(timeout=30_000)
    page.get_by_role("combobox", name="stage").select_option("dec1")
    page.get_by_text("One pass").wait_for(timeout=30_000)
    page.get_by_text("Runs in this page").wait_for()
    page.close()


FRAME = """
const state = STATE;
const sent = [];
const listeners = {};
const model = {
  get: (name) => state[name],
  set: (name, value) => {
    state[name] = value;
    (listeners[`change:${name}`] ?? []).forEach((f) => f());
  },
  on: (event, f) => { (listeners[event] ??= []).push(f); },
  off: (event, f) => { listeners[event] = (listeners[event] ?? []).filter((g) => g !== f); },
  save_changes: () => sent.push({ ...state }),
  send: ({ want }) => {
    const bytes = Uint8Array.from(atob(WEIGHTS[want]), (letter) => letter.charCodeAt());
    for (const f of listeners["msg:custom"]) f({ network: want }, [new DataView(bytes.buffer)]);
  },
};
const module = await import(URL.createObjectURL(new Blob([MODULE], { type: "text/javascript" })));
const end = await module.default.render({ model, el: document.querySelector("#output") });
addEventListener("message", ({ data }) => {
  if (data.set) model.set(...data.set);
  if (data === "end") end?.();
  parent.postMessage({ sent, text: document.body.innerText }, "*");
});
parent.postMessage("ready", "*");
"""


def frame(widget: Any) -> str:
    """Build an output frame: nothing but the module's own text and a stand-in for the manager."""
    weights = widget.weights if isinstance(widget, LiveU) else {}
    encoded = {name: base64.b64encode(file).decode() for name, file in weights.items()}
    code = FRAME.replace("STATE", json.dumps(widget.state()))
    code = code.replace("WEIGHTS", json.dumps(encoded))
    code = code.replace("MODULE", json.dumps(str(widget._esm)))
    code = code.replace("</", "<\\/")
    return (
        f"<!doctype html><style>{widget._css}</style><div id=output></div>"
        f"<script type=module>{code}</script>"
    )


def show(browser: Any, *widgets: Any) -> tuple[Any, list[str]]:
    """Open a page with each widget in a frame of its own; return it and what it complains of.

    What the first frame last said to its manager is in ``globalThis.sent``.
    """
    # A frame that nobody sees draws nothing: all must fit the window.
    page = browser.new_page(viewport={"width": 1000, "height": 100 + 1250 * len(widgets)})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_content("<h1>Outputs</h1>")
    page.evaluate(
        """(sources) => Promise.all(sources.map((source, index) => new Promise((ready) => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.width = 800; frame.height = 1200;
          frame.srcdoc = source;
          addEventListener("message", ({ source, data }) => {
            if (source !== frame.contentWindow) return;
            if (data === "ready") ready();
            if (index === 0) globalThis.sent = data.sent;
          });
          document.body.append(frame);
        })))""",
        [frame(widget) for widget in widgets],
    )
    return page, complaints


def told(page: Any, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Send the first frame a message, and return what it has told its manager so far."""
    post = "(message) => document.querySelector('iframe').contentWindow.postMessage(message, '*')"
    page.evaluate(post, message)
    page.wait_for_function("globalThis.sent?.length > 0")
    return list(page.evaluate("sent"))


def test_in_a_sandboxed_frame_a_widget_needs_nothing_but_itself(browser: Any) -> None:
    page, complaints = show(browser, ShapeExplorer(), ShapeExplorer(depth=3))
    first, second = page.frames[1], page.frames[2]
    assert "31,030,658" in first.locator("#output").inner_text()
    first.get_by_role("slider", name="depth").press("ArrowLeft")
    three = f"All: {ShapeExplorer(depth=3).trace().parameters:,}"
    first.get_by_text(three).first.wait_for()
    second.get_by_text(three).first.wait_for()
    assert told(page, {"set": ["height", 256]})[-1]["depth"] == 3, (
        "the manager was told what the hand did"
    )
    first.get_by_text("256×512 → 256×512").first.wait_for()
    assert complaints == []
    page.close()


@pytest.mark.parametrize("name", NAMES)
def test_every_widget_lives_in_such_a_frame(browser: Any, name: str) -> None:
    widget = make(name)
    page, complaints = show(browser, widget)
    act(name, page.frames[1])
    before, after = widget.state(), told(page, {})[-1]
    changed = {trait for trait in before if after[trait] != before[trait]}
    assert len(changed) >= 1, "the manager was told what the hand did"
    assert complaints == []
    page.close()


def test_a_network_runs_in_such_a_frame(browser: Any) -> None:
    page, complaints = show(browser, make("LiveU"))
    frame = page.frames[1]
    frame.get_by_label("stage", exact=True).select_option("dec1")
    frame.get_by_text("One pass").wait_for()
    assert (
        "Runs in this page: your network. Nothing leaves it"
        in frame.locator("#output").inner_text()
    )
    assert complaints == []
    page.close()


def test_ipywidgets_7_shows_the_bundle_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def display_of_version_7(self: Any) -> None:
        raise AssertionError("the bundle was passed over")

    monkeypatch.setattr(ipywidgets.Widget, "_ipython_display_", display_of_version_7, raising=False)
    data, _ = InteractiveShell.instance().display_formatter.format(ShapeExplorer())
    assert data.keys() >= {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"}


@pytest.mark.parametrize("name", NAMES)
def test_no_module_names_another_file_or_host(name: str) -> None:
    module = str(make(name)._esm)
    assert not re.search(r"^\s*import\s", module, re.MULTILINE)
    assert "http" not in module.replace("http://www.w3.org/2000/svg", "")
