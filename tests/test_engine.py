"""The engine of the page computes what torch computes: every map, in Chromium and in Node."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import playwright
import pytest
import torch

from unet_tutorial import UNet
from unet_tutorial.export import write_network
from unet_tutorial.unet import fits
from unet_tutorial.widgets._host import script

SKIPS = ("concat", "add", "none")
Maps = dict[str, np.ndarray]
# What Node and Chromium run alike: all maps of a network for an image, one after another.
DUMP = """
async (weights, cases) => {
  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt()).buffer;
  const call = UNetBook.engine();
  await call("start");
  await call("load", weights);
  const results = [];
  for (const { pixels, height, width } of cases) {
    const image = new Float32Array(decode(pixels));
    const { classes } = await call("run", { image, height, width });
    const maps = {};
    for (const { name, channels, height, width } of await call("list")) {
      const all = new Float32Array(channels * height * width);
      for (let channel = 0; channel < channels; channel++)
        all.set((await call("look", { name, channel, bare: true })).values,
          channel * height * width);
      const bytes = new Uint8Array(all.buffer);
      let text = "";
      for (let k = 0; k < bytes.length; k += 32768)
        text += String.fromCharCode(...bytes.subarray(k, k + 32768));
      maps[name] = { shape: [channels, height, width], data: btoa(text) };
    }
    results.push({ maps, classes: Array.from(classes) });
  }
  return results;
}
"""
PAGE = f"""async (given) => {{
  const {{ weights, cases }} = JSON.parse(given);
  return JSON.stringify(await ({DUMP})(weights, cases));
}}"""
NODE = (
    "const UNetBook = {};\n%s\nconst given = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
    "(%s)(given.weights, given.cases).then((all) => process.stdout.write(JSON.stringify(all)));"
)


def torch_maps(model: UNet, image: np.ndarray) -> Maps:
    """Catch every map of a network, under the engine's names."""
    maps: Maps = {}

    def catch(name: str, module: Any, *, first_input: bool = False) -> Any:
        def hook(module: Any, inputs: Any, output: Any = None) -> None:
            found = inputs[0] if first_input else output
            maps[name] = found[0].detach().clone().numpy()

        register = module.register_forward_pre_hook if first_input else module.register_forward_hook
        return register(hook)

    hooks = [catch("out", model.out)]

    def double(name: str, convolution: Any) -> None:
        hooks.extend([catch(f"{name}.1", convolution.conv_block[1]), catch(name, convolution)])

    for level, down in enumerate(model.contracting, start=1):
        double(f"enc{level}", down.conv)
        hooks.append(catch(f"pool{level}", down.pool))
    double("bottleneck", model.bottleneck)
    for level, up in zip(range(model.depth, 0, -1), model.expansive, strict=True):
        double(f"dec{level}", up.conv)
        hooks.append(catch(f"up{level}", up.up))
        if model.options["skip"] != "none":
            hooks.append(catch(f"join{level}", up.conv, first_input=True))
    with torch.inference_mode():
        model(torch.from_numpy(image)[None])
    for hook in hooks:
        hook.remove()
    return maps


def half(model: UNet) -> UNet:
    """Round the weights to half precision, as a file of the page has them."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(weights.half())
    return model.eval()


def encode(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array)).decode()


def ask(model: UNet, images: list[np.ndarray], folder: Path) -> dict[str, Any]:
    """Put network and images into what `DUMP` takes."""
    file = folder / "network.safetensors"
    write_network(file, model)
    cases = [
        {"pixels": encode(image), "height": image.shape[1], "width": image.shape[2]}
        for image in images
    ]
    return {"weights": encode(np.frombuffer(file.read_bytes(), np.uint8)), "cases": cases}


def in_node(given: dict[str, Any], browser: Any) -> Any:
    """Run in the Node that Playwright brings."""
    node = Path(playwright.__file__).parent / "driver" / "node"
    done = subprocess.run(
        [str(node), "-e", NODE % (script("engine.js"), DUMP)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def in_chromium(given: dict[str, Any], browser: Any) -> Any:
    """Run on a page of the browser."""
    page = browser.new_page()
    page.add_script_tag(content=f"globalThis.UNetBook = {{}};\n{script('engine.js')}")
    try:
        # As text: Playwright looks at every number that it hands over.
        return json.loads(page.evaluate(PAGE, json.dumps(given)))
    finally:
        page.close()


def worst(model: UNet, images: list[np.ndarray], results: list[Any]) -> float:
    """Compare all maps; return the largest deviation, as a part of its map's largest value."""
    found = 0.0
    for image, result in zip(images, results, strict=True):
        expected = torch_maps(model, image)
        skips = {f"skip{level}" for level in range(1, model.depth + 1)}
        thin = {f"thin{level}" for level in range(1, model.depth + 1)}
        assert set(result["maps"]) - skips - thin == {*expected, "image"}
        for name, want in expected.items():
            about = result["maps"][name]
            got = np.frombuffer(base64.b64decode(about["data"]), np.float32).reshape(about["shape"])
            assert got.shape == want.shape, name
            largest = float(np.abs(want).max())
            deviation = float(np.abs(got - want).max()) / (largest or 1.0)
            found = max(found, deviation)
        classes = np.array(result["classes"]).reshape(expected["out"].shape[1:])
        # Where two classes tie within rounding, either is right.
        top = np.sort(expected["out"], axis=0)
        clear = top[-1] - top[-2] > 1e-5 * np.abs(expected["out"]).max()
        assert clear.mean() > 0.99
        assert (classes == expected["out"].argmax(0))[clear].all()
    return found


def allowed(chance: np.random.Generator, model: UNet, longest: int) -> tuple[int, int]:
    sides = [n for n in range(1, longest) if fits(n, depth=model.depth, padding=model.padding)]
    return int(chance.choice(sides)), int(chance.choice(sides))


def noise(chance: np.random.Generator, size: tuple[int, int], channels: int = 1) -> np.ndarray:
    return chance.random((channels, *size), dtype=np.float32)


places = pytest.mark.parametrize("where", [in_node, in_chromium], ids=["node", "chromium"])


@places
@pytest.mark.parametrize("skip", SKIPS)
def test_every_map_is_that_of_torch(skip: Any, where: Any, browser: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    chance = np.random.default_rng(SKIPS.index(skip))
    model = half(UNet(1, 2, base_channels=8, skip=skip))
    sizes = [(64, 64), (128, 128), (256, 256), *(allowed(chance, model, 112) for _ in range(20))]
    images = [noise(chance, size) for size in sizes]
    # One after another: the maps of one image must leave no trace in those of the next.
    results: list[Any] = []
    for part in (images[:3], images[3:]):
        results += where(ask(model, part, tmp_path), browser)
    assert worst(model, images, results) <= 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "valid", "depth": 2, "base_channels": 3},
        {"padding": "valid", "depth": 3, "base_channels": 5, "skip": "add"},
        {"upsampling": "bilinear", "depth": 3, "base_channels": 6},
        {"upsampling": "bilinear", "depth": 2, "base_channels": 4, "skip": "none"},
        {"depth": 1, "base_channels": 1, "in_channels": 3, "num_classes": 5},
    ],
    ids=str,
)
def test_the_rest_of_the_family_runs_too(
    options: dict[str, Any], browser: Any, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    chance = np.random.default_rng(1)
    channels, classes = options.get("in_channels", 1), options.get("num_classes", 3)
    own = {key: value for key, value in options.items() if not key.startswith(("in_", "num_"))}
    model = half(UNet(channels, classes, **own))
    images = [noise(chance, allowed(chance, model, 120), channels) for _ in range(8)]
    assert worst(model, images, in_node(ask(model, images, tmp_path), browser)) <= 1e-5


def test_batch_normalization_is_folded_on_the_way(browser: Any, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = UNet(1, 2, base_channels=4, depth=2, norm="batch")
    image = noise(np.random.default_rng(2), (32, 48))
    model(torch.from_numpy(image)[None])  # in training: gives the statistics other values
    model.eval()
    found = in_node(ask(model, [image], tmp_path), browser)[0]["maps"]["out"]
    got = np.frombuffer(base64.b64decode(found["data"]), np.float32).reshape(found["shape"])
    with torch.inference_mode():
        want = model(torch.from_numpy(image)[None])[0].numpy()
    assert np.abs(got - want).max() <= 5e-3 * np.abs(want).max()  # weights in half precision


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (b"", "not a safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a safetensors file"),
    ],
)
def test_what_is_no_network_is_refused(weights: bytes, said: str, browser: Any) -> None:
    given = {"weights": base64.b64encode(weights).decode(), "cases": []}
    with pytest.raises(AssertionError, match=said):
        in_node(given, browser)


@pytest.mark.alone
@pytest.mark.flaky(reruns=2)  # other work on the machine makes a pass late, never early
def test_a_pass_takes_no_longer_than_promised(browser: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = ask(half(UNet(1, 2, base_channels=8)), [], tmp_path)
    page = browser.new_page()
    page.add_script_tag(content=f"globalThis.UNetBook = {{}};\n{script('engine.js')}")
    medians = page.evaluate(
        """async ({ weights }) => {
          const call = UNetBook.engine();
          const began = performance.now();
          await call("start");
          await call("load", weights);
          const medians = { start: performance.now() - began };
          for (const side of [64, 128, 256]) {
            const image = Float32Array.from({ length: side * side }, Math.random);
            const times = [];
            for (let k = 0; k < 15; k++)
              times.push((await call("run", { image, height: side, width: side })).milliseconds);
            medians[side] = times.sort((a, b) => a - b)[7];
          }
          return medians;
        }""",
        given,
    )
    page.close()
    print(medians)
    assert medians["64"] <= 16
    assert medians["128"] <= 50
    assert medians["256"] <= 150
