"""Record the moving pictures of README.md: the live U of chapter 7, in a browser.

    make pictures

The network runs in the page while a pen draws a membrane through a cell of the synthetic set; every
picture is what the page showed. Needs Chromium and the extra ``[test]``.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from unet_tutorial.datasets import load
from unet_tutorial.widgets import live, write_page

HERE = Path(__file__).resolve().parent
NETWORK = "membranes-concat"
STROKES = [((2, 112), (37, 84)), ((76, 62), (126, 42))]  # in pixels of the image, 128×128
STEPS = 7
QUALITY = 45
WIDTH = 560  # of the pictures
LIVE = ".unet-widget-live"
SETTLED = f"() => /One pass/.test(document.querySelector('{LIVE}').textContent)"


def take(page: Any) -> Image.Image:
    """Photograph the network from its image down to its bottleneck."""
    widget = page.locator(LIVE).bounding_box()
    top = page.locator(f"{LIVE} canvas").first.bounding_box()["y"] - 24
    bottom = page.get_by_label("stage", exact=True).bounding_box()["y"] - 8
    clip = {"x": widget["x"], "y": top, "width": widget["width"], "height": bottom - top}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip, full_page=True))).convert("RGB")
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.LANCZOS)


def record(page: Any) -> tuple[list[Image.Image], list[int]]:
    """Draw, and photograph the network's answer after each step."""
    image = page.locator(f"{LIVE} canvas[role=application]")
    image.click(position={"x": 4, "y": 4})  # wakes the network
    page.wait_for_function(SETTLED)
    page.get_by_role("button", name="Begin again").click()
    page.wait_for_timeout(1000)
    frames, milliseconds = [take(page)], [1800]
    for start, end in STROKES:
        for step in range(STEPS):
            x, y = (a + (b - a) * step / (STEPS - 1) for a, b in zip(start, end, strict=True))
            box = image.bounding_box()
            scale = box["width"] / 128
            page.mouse.move(box["x"] + x * scale, box["y"] + y * scale)
            if step == 0:
                page.mouse.down()
            page.wait_for_timeout(600)  # the answer follows the pen
            frames.append(take(page))
            milliseconds.append(180)
        page.mouse.up()
        milliseconds[-1] = 1800
    return frames, milliseconds


def main() -> None:
    """Write live-u.webp and live-u-dark.webp."""
    micrograph = load("membranes", n_images=2, size=256).images[0]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        html = Path(folder) / "live.html"
        write_page(html, live({NETWORK: NETWORK}, micrograph), title="The live U")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking", "--disable-sync"],
        )
        for theme, name in (("light", "live-u.webp"), ("dark", "live-u-dark.webp")):
            context = browser.new_context(
                color_scheme=theme, viewport={"width": 800, "height": 1500}
            )
            page = context.new_page()
            page.goto(html.as_uri())
            frames, milliseconds = record(page)
            frames[0].save(
                HERE / name,
                save_all=True,
                append_images=frames[1:],
                duration=milliseconds,
                loop=0,
                quality=QUALITY,
                method=6,
            )
            print(f"{name}: {len(frames)} pictures, {(HERE / name).stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
