"""The live U: a network that runs in the page, with whatever a reader draws or drops."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OpenWidget, serve
from PIL import Image

from unet_tutorial import UNet
from unet_tutorial._pictures import read_url
from unet_tutorial.datasets import load
from unet_tutorial.unet import fits
from unet_tutorial.widgets import LiveU, live, write_page
from unet_tutorial.widgets._live import eight_bit, middle, prepare, sheet

LIVE = ".unet-widget-live"
IMAGE = f"{LIVE} canvas[role=application]"
SETTLED = "() => /One pass/.test(document.querySelector('.unet-widget-live').textContent)"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return load("membranes", n_images=2, size=256).images[0]


@pytest.fixture(scope="module")
def model() -> UNet:
    torch.manual_seed(0)
    return UNet(1, 2, base_channels=4).eval()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The page from a local server, beside which `open_widget` puts its files."""
    with serve(tmp_path) as address:
        yield f"{address}/widget.html"


def wake(page: Any) -> None:
    """Draw a dot and wait for the network."""
    page.locator(IMAGE).click(position={"x": 30, "y": 30})
    page.wait_for_function(SETTLED)


def gray(page: Any, number: int) -> np.ndarray:
    """Read one of the three canvases at the top: image, probability, mask."""
    address = page.evaluate(
        "(number) => document.querySelectorAll('.unet-widget-live canvas')[number].toDataURL()",
        number,
    )
    return read_url(address)[..., 0]


def drop(page: Any, name: str, content: bytes, kind: str) -> None:
    page.locator(f"{LIVE} input[type=file]").set_input_files(
        {"name": name, "mimeType": kind, "buffer": content}
    )


def packed(picture: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def note(page: Any, begins: str) -> str:
    """Wait for what is said about a picture."""
    found = page.locator(f"{LIVE} p[role=status]", has_text=begins)
    found.wait_for()
    return str(found.inner_text())


def test_the_page_shows_what_torch_predicts_for_what_was_drawn(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    widget = live(model, image)
    page = open_widget(widget)
    wake(page)
    drawn = gray(page, 0)
    untouched = np.round(255 * middle(eight_bit(image), model, 128)[0]).astype(np.uint8)
    assert (drawn != untouched).any(), "the dot was not drawn"
    assert (drawn != untouched).mean() < 0.01
    network = prepare(model)[0]
    # What is drawn has a tone of the image, so 8 bits tell it exactly.
    found = network.probabilities(drawn[None] / np.float32(255))
    assert np.abs(gray(page, 1) - 255 * (1 - found[1])).max() <= 1.01
    clear = np.abs(found[1] - 0.5) > 1e-4
    assert ((gray(page, 2) == 0) == (found[1] > 0.5))[clear].all()
    assert page.complaints == []


def test_stored_example_is_what_the_network_computes_without_drawing(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    page = open_widget(live(model, image))
    page.wait_for_function("() => document.querySelectorAll('canvas')[2].width > 10")
    page.wait_for_timeout(300)
    stored = gray(page, 1).astype(int)
    mask = gray(page, 2)
    assert "Stored example" in page.locator(LIVE).inner_text()
    page.get_by_label("stage", exact=True).select_option("dec1")
    page.wait_for_function(SETTLED)
    assert np.abs(gray(page, 1).astype(int) - stored).mean() < 3  # stored as JPEG
    assert (gray(page, 2) == mask).mean() > 0.999


def test_an_open_map_says_its_range_and_what_made_it(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    page = open_widget(live(model, image))
    page.get_by_label("stage", exact=True).select_option("enc2")
    page.wait_for_function(SETTLED)
    details = page.locator(f"{LIVE} .unet-details")
    text = details.inner_text()
    assert "enc2, map" in text
    assert "64×64 values from 0 to " in text
    assert "3×3 convolution and ReLU" in text
    assert "enc2.1 " in text
    # All maps can be chosen now, those within a stage too.
    names = page.get_by_label("stage", exact=True).locator("option").all_inner_texts()
    assert {"image", "enc1.1", "pool4", "up1", "skip1", "join1", "out"} <= set(names)
    page.get_by_label("stage", exact=True).select_option("join2")
    details.get_by_text("join2, map").wait_for()
    page.get_by_label("map", exact=True).fill("9")
    details.get_by_text("skip2 9").or_(details.get_by_text("join2, map 9")).first.wait_for()


def test_a_click_on_a_map_opens_it(open_widget: OpenWidget, model: UNet, image: np.ndarray) -> None:
    page = open_widget(live(model, image))
    canvas = page.get_by_label("enc1: 4 maps")
    box = canvas.bounding_box()
    canvas.click(position={"x": 0.9 * box["width"], "y": 0.9 * box["height"]})
    page.wait_for_function(SETTLED)
    assert "enc1, map 3" in page.locator(f"{LIVE} .unet-details").inner_text()


def test_keyboard_draws(open_widget: OpenWidget, model: UNet, image: np.ndarray) -> None:
    page = open_widget(live(model, image))
    page.wait_for_function("() => document.querySelectorAll('canvas')[0].width > 10")
    canvas = page.locator(IMAGE)
    before = gray(page, 0)
    canvas.press("ArrowRight")
    canvas.press("ArrowUp")
    canvas.press("Space")
    page.wait_for_function(SETTLED)
    changed = np.argwhere(gray(page, 0) != before)
    assert np.abs(changed.mean(axis=0) - (60, 68)).max() < 3
    page.locator("p.unet-spoken", has_text="of the pixels").wait_for(state="attached")
    page.get_by_text("Begin again").click()
    page.wait_for_timeout(300)
    assert (gray(page, 0) == before).all()


def test_noise_contrast_and_size_change_the_image(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    page = open_widget(live(model, image))
    wake(page)
    page.get_by_text("Begin again").click()
    page.wait_for_timeout(200)
    plain = gray(page, 0).astype(float)
    page.get_by_label("contrast", exact=True).fill("0")
    page.wait_for_timeout(200)
    assert np.ptp(gray(page, 0)) <= 1
    page.get_by_label("contrast", exact=True).fill("100")
    page.get_by_label("noise", exact=True).fill("10")
    page.wait_for_timeout(200)
    noise = gray(page, 0) - plain
    assert 0.07 * 255 < noise.std() < 0.11 * 255  # cut at black and white
    for side in ("64", "256"):
        page.get_by_label("pixels", exact=True).select_option(side)
        page.wait_for_function(f"() => document.querySelectorAll('canvas')[1].width === {side}")
        assert gray(page, 0).shape == (int(side), int(side))


@pytest.mark.parametrize(
    ("options", "size"),
    [({"padding": "valid", "depth": 2}, (200, 180)), ({"upsampling": "bilinear"}, (64, 100))],
)
def test_other_members_of_the_family(
    open_widget: OpenWidget, options: dict[str, Any], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    model = UNet(1, 3, base_channels=3, **options)
    page = open_widget(live(model, np.random.default_rng(0).random(size)))
    page.get_by_label("class", exact=True).select_option("2")
    page.wait_for_function(SETTLED)
    side = gray(page, 0).shape[0]
    assert all(fits(n, depth=model.depth, padding=model.padding) for n in gray(page, 0).shape)
    assert gray(page, 1).shape[0] == (side if model.padding == "same" else side - 40)
    assert page.complaints == []


def test_several_networks(open_widget: OpenWidget, image: np.ndarray) -> None:
    torch.manual_seed(0)
    models = {skip: UNet(1, 2, base_channels=2, depth=2, skip=skip) for skip in ("concat", "none")}
    page = open_widget(live(models, image))
    wake(page)
    before = gray(page, 1)
    page.get_by_label("network", exact=True).select_option("none")
    page.wait_for_function("() => !/skip1/.test(document.querySelector('select').textContent)")
    page.wait_for_timeout(500)
    assert (gray(page, 1) != before).any()


# --- pictures of one's own


def test_pictures_of_all_kinds(open_widget: OpenWidget, model: UNet, image: np.ndarray) -> None:
    page = open_widget(live(model, image))
    chance = np.random.default_rng(0)
    color = Image.fromarray(chance.integers(0, 255, (150, 200, 3), np.uint8))
    drop(page, "color.jpg", packed(color, "jpeg"), "image/jpeg")
    assert "the middle 150×150 of 150×200 pixels" in note(page, "color.jpg")
    page.wait_for_function(SETTLED)
    deep = Image.fromarray((np.arange(100 * 100, dtype=np.uint16) * 6).reshape(100, 100))
    drop(page, "deep.png", packed(deep), "image/png")
    note(page, "deep.png")
    shown = gray(page, 0)  # 64 of 100 rows, from the 19th on
    assert abs(int(shown[0, 0]) - (18 * 100 + 18) * 6 / 257) <= 2
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    drop(page, "clear.png", packed(clear), "image/png")
    note(page, "clear.png")
    assert (gray(page, 0) == 255).all(), "what is transparent lies on white"
    assert page.complaints == []


def test_twenty_megapixels(open_widget: OpenWidget, model: UNet, image: np.ndarray) -> None:
    page = open_widget(live(model, image))
    large = Image.fromarray(
        np.kron(np.eye(10, dtype=np.uint8) * 255, np.ones((450, 450), np.uint8))
    )
    drop(page, "large.png", packed(large), "image/png")
    assert "the middle 256×256 of 4500×4500 pixels" in note(page, "large.png")
    page.get_by_label("of your picture", exact=True).select_option("all")
    page.locator(f"{LIVE} p[role=status]", has_text="shrunk to 256×256").wait_for()
    page.get_by_label("pixels", exact=True).select_option("256")
    page.wait_for_timeout(500)
    shown = gray(page, 0)
    assert shown[5, 5] > 250
    assert shown[5, 128] < 5


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("notes.txt", b"hello", "text/plain", "this is no picture (text/plain)"),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "image/png", "cannot read it"),
        ("scan.tif", b"II*\x00" + bytes(50), "image/tiff", "save it as PNG or JPEG"),
        ("dot.png", packed(Image.new("L", (1, 1))), "image/png", "1×1 pixels are too few"),
    ],
    ids=["text", "broken", "tiff", "dot"],
)
def test_what_cannot_be_taken_is_said(
    open_widget: OpenWidget,
    model: UNet,
    image: np.ndarray,
    name: str,
    content: bytes,
    kind: str,
    said: str,
) -> None:
    page = open_widget(live(model, image))
    page.wait_for_function("() => document.querySelectorAll('canvas')[0].width > 10")
    before = gray(page, 0)
    drop(page, name, content, kind)
    assert said in note(page, name)
    assert (gray(page, 0) == before).all()
    assert page.complaints == []


def test_a_dropped_picture_is_taken(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    page = open_widget(live(model, image))
    text = base64.b64encode(packed(Image.new("L", (64, 64), 200))).decode()
    page.evaluate(
        """async ({ text }) => {
          const blob = await (await fetch(`data:image/png;base64,${text}`)).blob();
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([blob], "dropped.png", { type: "image/png" }));
          const event = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
          document.querySelector(".unet-widget-live canvas").dispatchEvent(event);
        }""",
        {"text": text},
    )
    assert "64×64" in note(page, "dropped.png")


# --- where it runs


def test_nothing_is_asked_for_before_the_first_touch_and_nothing_after(
    open_widget: OpenWidget, model: UNet, image: np.ndarray, served: str
) -> None:
    asked: list[str] = []
    page = open_widget(live(model, image), address=served)
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(500)
    page.complaints.clear()  # the page itself came from the server
    assert [url for url in asked if "networks" in url] == []
    wake(page)
    assert [url.rsplit("/", 1)[1] for url in asked if "networks" in url] == ["yours.mjs"]
    page.context.set_offline(True)
    asked.clear()
    drop(page, "own.png", packed(Image.new("L", (80, 80), 90)), "image/png")
    note(page, "own.png")
    page.wait_for_timeout(300)
    assert [url for url in asked if not url.startswith("blob:")] == []


@pytest.mark.parametrize("how", ["refused", "missing"])
def test_without_a_worker_the_page_itself_runs_it(
    open_widget: OpenWidget, model: UNet, image: np.ndarray, how: str
) -> None:
    missing = "delete globalThis.Worker"
    refused = "globalThis.Worker = class { constructor() { throw new Error('no') } }"
    page = open_widget(live(model, image), init=missing if how == "missing" else refused)
    wake(page)
    assert "without a worker" in page.locator(LIVE).inner_text()
    assert page.complaints == []


def test_a_policy_without_webassembly_leaves_the_stored_example(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    policy = (
        '<meta http-equiv="Content-Security-Policy" content="script-src \'unsafe-inline\' file:">'
    )
    page = open_widget(live(model, image), policy=policy)
    page.wait_for_function("() => document.querySelectorAll('canvas')[1].width > 10")
    page.wait_for_timeout(300)
    stored = gray(page, 1)
    page.locator(IMAGE).click(position={"x": 30, "y": 30})
    page.get_by_text("may not run WebAssembly").wait_for()
    assert "The stored example stays" in page.locator(LIVE).inner_text()
    assert (gray(page, 1) == stored).all()


def test_weights_that_are_not_there_are_named(
    open_widget: OpenWidget, model: UNet, image: np.ndarray, tmp_path: Path
) -> None:
    page = open_widget(live(model, image))
    (tmp_path / "networks" / "yours.mjs").unlink()
    page.locator(IMAGE).click(position={"x": 30, "y": 30})
    page.get_by_text("The network cannot run here").wait_for()
    assert "does not load" in page.locator(LIVE).inner_text()


def test_an_error_of_the_engine_is_said(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    page = open_widget(live(model, image))
    wake(page)
    page.evaluate("() => { Worker.prototype.postMessage = () => { throw new Error('no room') } }")
    page.get_by_label("contrast", exact=True).fill("50")
    page.get_by_text("The network has stopped: no room").wait_for()
    assert page.complaints == []


def test_an_own_network_on_a_page_without_kernel_says_where_it_runs(
    browser: Any, model: UNet, image: np.ndarray, tmp_path: Path
) -> None:
    from unet_tutorial.widgets import write_site

    write_site(tmp_path)
    file = tmp_path / "own.html"
    file.write_text(
        "<!doctype html><title>own</title>"
        f"{live(model, image).static_html()}<script src='unet-widgets.js'></script>",
        encoding="utf-8",
    )
    page = browser.new_page()
    page.goto(file.as_uri())
    page.locator(IMAGE).click(position={"x": 30, "y": 30})
    page.get_by_text("its weights are not part of this page").wait_for()
    page.close()


def test_a_page_in_one_file_needs_nothing_else(
    browser: Any, model: UNet, image: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "alone" / "page.html"
    file.parent.mkdir()
    write_page(file, live(model, image), title="Cells & <more>")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    wake(page)
    assert page.locator("h1").inner_text() == "Cells & <more>"
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    page.close()


def test_the_kernel_sends_the_weights(model: UNet, image: np.ndarray) -> None:
    widget = live(model, image)
    sent: list[Any] = []
    widget.send = lambda content, buffers: sent.append((content, buffers))
    widget._answer(widget, {"want": "yours"}, [])
    widget._answer(widget, {"want": "another"}, [])
    assert sent == [({"network": "yours"}, [widget.weights["yours"]])]
    assert "weights" not in widget.state()


# --- the Python half


def test_stages_are_drawn_as_the_engine_does(
    open_widget: OpenWidget, model: UNet, image: np.ndarray
) -> None:
    widget = live(model, image)
    page = open_widget(widget)
    wake(page)
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('[role=img][aria-label*=maps]')]"
        ".map((one) => [one.ariaLabel.split(':')[0], one.height, one.width])"
    )
    stored = {stage["name"]: read_url(stage["sheet"]).shape[:2] for stage in widget.stages}
    assert {name: (height, width) for name, height, width in sizes} == stored


def test_sheet_keeps_the_order_of_the_channels() -> None:
    features = np.zeros((5, 4, 4), np.float32)
    features[3, :2] = 1
    drawn = sheet(features)
    assert (drawn["columns"], drawn["rows"]) == (4, 2)
    tile = drawn["picture"][:4, 12:16]
    assert (tile[:2] == tile[0, 0]).all()
    assert (tile[2:] == tile[3, 0]).all()
    assert (tile[0, 0] != tile[3, 0]).any()


def test_networks_that_cannot_share_a_page_are_named(image: np.ndarray) -> None:
    models = {
        "one": UNet(1, 2, base_channels=2, depth=2),
        "two": UNet(1, 3, base_channels=2, depth=2),
    }
    with pytest.raises(ValueError, match="two: num_classes is 3, that of the first network 2"):
        live(models, image)


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (np.zeros((8, 40)), {}, "the image has 8×40 pixels"),
        (np.zeros((100, 100)), {"padding": "valid"}, "needs 188×188 or more"),
        (np.zeros((2, 64, 64)), {"in_channels": 2}, "gray (1) and color (3)"),
    ],
)
def test_what_does_not_fit_is_said(image: np.ndarray, options: dict[str, Any], said: str) -> None:
    channels = options.get("in_channels", 1)
    own = {key: value for key, value in options.items() if key != "in_channels"}
    with pytest.raises(ValueError, match=r"the image|channels") as error:
        LiveU.of(UNet(channels, 2, base_channels=2, **own), image)
    assert said in str(error.value)


# --- what was promised


@pytest.mark.alone
def test_first_result_comes_soon_and_the_page_stays_awake(
    open_widget: OpenWidget, image: np.ndarray, served: str
) -> None:
    torch.manual_seed(0)
    page = open_widget(
        live(UNet(1, 2, base_channels=8), image),
        address=served,
        init="""
          globalThis.tasks = [];
          new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => e.duration)))
            .observe({ entryTypes: ["longtask"] });
        """,
    )
    page.wait_for_timeout(1000)
    page.evaluate("() => { tasks.length = 0; globalThis.began = performance.now(); }")
    page.locator(IMAGE).click(position={"x": 30, "y": 30})
    page.wait_for_function(SETTLED, polling=10)
    first = page.evaluate("() => performance.now() - began")
    box = page.locator(IMAGE).bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    for k in range(60):
        page.mouse.move(box["x"] + 20 + 2 * k, box["y"] + 20 + k)
    page.mouse.up()
    page.get_by_label("pixels", exact=True).select_option("256")
    page.wait_for_timeout(1500)
    tasks = page.evaluate("() => tasks")
    print(f"first result after {first:.0f} ms; tasks over 50 ms: {tasks}")
    assert first <= 1500
    assert tasks == []
