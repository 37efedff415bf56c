"""A network that leaves says the same as the one that was trained, and its file says what it is."""

from __future__ import annotations

import importlib.util
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from unet_tutorial import DoubleConvolution, UNet, export
from unet_tutorial.checkpoints import write_checkpoint
from unet_tutorial.cli import app
from unet_tutorial.export import (
    EXPORTS,
    NetworkFileError,
    describe_input,
    export_run,
    fold_batch_norm,
    list_networks,
    load_network,
    read_network,
    write_network,
    write_onnx,
)
from unet_tutorial.runs import Run, RunError
from unet_tutorial.unet import initialize_he

OPTIONS: dict[str, tuple[str | None, ...]] = {
    "norm": (None, "batch"),
    "skip": ("concat", "add", "none"),
    "upsampling": ("transposed", "bilinear"),
    "padding": ("same", "valid"),
}
EVERY = [
    pytest.param(dict(zip(OPTIONS, one, strict=True)), id="-".join(map(str, one)))
    for one in product(*OPTIONS.values())
]


@pytest.fixture(autouse=True, scope="module")
def single(one_thread: None) -> None:
    """One thread for all tests here."""


def network(seed: int = 0, depth: int = 3, in_channels: int = 1, **options: Any) -> UNet:
    """Build a network whose output depends on its input as much as a trained one's does.

    The stored means are small: where a normalization takes away nearly all of a smooth map, what is
    left is rounding, in PyTorch no less than elsewhere.
    """
    torch.manual_seed(seed)
    model = UNet(in_channels, 3, base_channels=4, depth=depth, **options)
    initialize_he(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
        if isinstance(bias := getattr(layer, "bias", None), Tensor):
            nn.init.normal_(bias, std=0.1)
    return model.eval()


def deviation(found: Tensor | np.ndarray, expected: Tensor) -> float:
    """Give the largest difference, in parts of the largest value."""
    assert tuple(found.shape) == tuple(expected.shape)
    return ((torch.as_tensor(found) - expected).abs().max() / expected.abs().max()).item()


def run_onnx(path: Path, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.numpy()})[0]


# --- folding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", EVERY)
@torch.inference_mode()
def test_folded_networks_answer_as_before(options: dict[str, Any]) -> None:
    model = network(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = (
        torch.randn(2, 1, 108, 124) if options["padding"] == "valid" else torch.randn(2, 1, 40, 24)
    )
    expected = model(images)
    assert expected.std(dim=(2, 3)).max() > 0.01 * expected.abs().max(), "a test that sees nothing"
    folded = fold_batch_norm(model.train())
    assert deviation(folded(images), expected) <= 1e-5
    assert folded.options == {**model.options, "norm": None}
    assert not folded.training
    assert model.training, "the network that was given stays as it is"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_batch_normalization_folding_is_a_copy() -> None:
    model = network(dropout=0.5)
    folded = fold_batch_norm(model)
    for (name, value), (same, copied) in zip(
        model.state_dict().items(), folded.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(value, copied)
        assert value.data_ptr() != copied.data_ptr(), "training one must not change the other"
    assert folded.options == model.options


def test_folding_draws_nothing_at_random() -> None:
    model = network(norm="batch")
    state = torch.get_rng_state()
    fold_batch_norm(model)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "other", [DoubleConvolution(1, 2), nn.DataParallel(UNet(1, 2, base_channels=1))]
)
def test_what_is_no_unet_is_not_folded(other: Any) -> None:
    with pytest.raises(ValueError, match=f"only a UNet .* got a {type(other).__name__}"):
        fold_batch_norm(other)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", EVERY[::3])
def test_a_file_gives_back_the_network_in_half_precision(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = network(**options, dropout=0.5)
    about = {"title": "cells · Zellen", "scores": {"dice": 0.1 + 0.2}, "class_names": ["a", "b"]}
    write_network(tmp_path / "new/a.safetensors", model, about=about)
    again, told = read_network(str(tmp_path / "new/a.safetensors"))
    assert told == about, "texts and numbers come back exactly"
    expected = fold_batch_norm(model)
    for name, value in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    assert again.options == {**model.options, "norm": None, "dropout": 0.0}
    assert (again.in_channels, again.num_classes, again.training) == (1, 3, False)
    bare = sum(value.numel() for value in expected.state_dict().values())
    assert 0 < (tmp_path / "new/a.safetensors").stat().st_size - 2 * bare < 6000


def test_float32_on_request_loses_nothing(tmp_path: Path) -> None:
    model = network(norm="batch")
    write_network(tmp_path / "a.safetensors", model, precision="float32")
    again, _ = read_network(tmp_path / "a.safetensors")
    for name, value in fold_batch_norm(model).state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_what_a_page_reads_is_as_promised(tmp_path: Path) -> None:
    """The first bytes are the length of a JSON header, its `__metadata__` has our one entry."""
    write_network(tmp_path / "a.safetensors", network(norm="batch", skip="add"), about={"x": [1]})
    content = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    (key, text), = header.pop("__metadata__").items()  # fmt: skip
    assert key == "inside-unet network 1"
    assert json.loads(text) == {
        "in_channels": 1,
        "num_classes": 3,
        "options": {
            "base_channels": 4,
            "depth": 3,
            "padding": "same",
            "upsampling": "transposed",
            "skip": "add",
        },
        "x": [1],
    }
    assert {entry["dtype"] for entry in header.values()} == {"F16"}
    plain = UNet(1, 3, base_channels=4, depth=3, skip="add")
    assert header.keys() == plain.state_dict().keys()


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    about = {"title": "a", "dataset": "b", "scores": {"dice": 1.0}}
    contents = set()
    for _ in range(8):
        write_network(tmp_path / "a.safetensors", network(norm="batch"), about=about)
        contents.add((tmp_path / "a.safetensors").read_bytes())
    assert len(contents) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def changed(value: float, precision: Any = "float16") -> dict[str, Any]:
    """Put one value into a network, and say how to write it."""
    model = network()
    with torch.no_grad():
        model.bottleneck.conv_block[0].weight[0, 0, 0, 0] = value
    return {"model": model, "precision": precision}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (changed(1e5), r"bottleneck\.\S+\.0\.weight holds 1e\+05, and float16 ends at 65504"),
        (changed(float("nan")), r"bottleneck\.\S+\.0\.weight holds values that are not finite"),
        (changed(float("inf"), "float32"), "not finite"),
        (changed(1.0, "int8"), "precision must be 'float16' or 'float32', got 'int8'"),
        ({"about": {"options": {}}}, "about holds options, which the network says itself"),
        ({"about": {"score": float("nan")}}, "about must hold what JSON can"),
        ({"about": {"image": np.zeros(2)}}, "ndarray is not JSON"),
        ({"model": DoubleConvolution(1, 2)}, "only a UNet"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    file = tmp_path / "a.safetensors"
    file.write_text("what was there")
    with pytest.raises(ValueError, match=said):
        write_network(file, **{"model": network(), **options})
    assert file.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [file]


def test_the_largest_weight_that_fits_is_written(tmp_path: Path) -> None:
    write_network(tmp_path / "a.safetensors", **changed(65504.0))
    write_network(tmp_path / "b.safetensors", **changed(1e5, "float32"))
    assert read_network(tmp_path / "b.safetensors")[0].bottleneck.conv_block[0].weight.max() == 1e5


def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path: Path) -> None:
    weights = network().state_dict()
    network_file = tmp_path / "network.safetensors"
    write_network(network_file, network())
    metadata = {"in_channels": 1, "num_classes": 3, "options": {"base_channels": 4, "depth": 3}}

    def with_notes(name: str, text: str) -> None:
        save_file(load_file(network_file), tmp_path / name, {"inside-unet network 1": text})

    with pytest.raises(FileNotFoundError, match="there is no network file"):
        read_network(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no network file"):
        read_network(tmp_path)
    (tmp_path / "text").write_text("a text that is no safetensors file at all")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "half").write_bytes(network_file.read_bytes()[:-100])
    write_checkpoint(tmp_path / "checkpoint", weights, {})
    save_file(weights, tmp_path / "bare")
    with_notes("json", "{")
    with_notes("missing", json.dumps({k: v for k, v in metadata.items() if k != "options"}))
    with_notes("list", "[1, 2]")
    with_notes("other", json.dumps({**metadata, "num_classes": 2}))
    with_notes("deeper", json.dumps({**metadata, "options": {"base_channels": 4}}))
    with_notes("option", json.dumps({**metadata, "options": {"width": 4}}))
    for name, said in {
        "text": "is no network file",
        "empty": "is no network file",
        "half": "is no network file",
        "checkpoint": "no exported network .* it says 'format', 'notes'.*unet-tutorial export RUN",
        "bare": "it says nothing of itself",
        "json": "not those of the network",
        "missing": "'options'",
        "list": "not those of the network",
        "other": "size mismatch",
        "deeper": "Missing key",
        "option": "'width'",
    }.items():
        with pytest.raises(NetworkFileError, match=said) as caught:
            read_network(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with_notes("good", json.dumps(metadata))
    assert read_network(tmp_path / "good")[0].depth == 3


def test_networks_of_the_book_are_read_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "NETWORKS", tmp_path / "networks")
    assert list_networks() == []
    with pytest.raises(ValueError, match="no network 'cells'; there are none"):
        load_network("cells")
    for name in ("isbi-concat", "isbi-add"):
        write_network(tmp_path / f"networks/{name}.safetensors", network(), about={"title": name})
    assert list_networks() == ["isbi-add", "isbi-concat"]
    assert load_network("isbi-concat")[1] == {"title": "isbi-concat"}
    assert load_network(tmp_path / "networks/isbi-add.safetensors")[1] == {"title": "isbi-add"}
    with pytest.raises(
        ValueError, match=r"'cells'; there are isbi-add, isbi-concat\. .*cells\.safetensors"
    ):
        load_network("cells")
    with pytest.raises(FileNotFoundError, match=r"isbi-add\.safetensors"):
        load_network("isbi-add.safetensors")  # has a suffix, so it is a file


def test_every_network_of_the_book_works() -> None:
    for name in list_networks():
        model, about = load_network(name)
        side = 2**model.depth
        with torch.inference_mode():
            assert model(torch.rand(1, model.in_channels, side, side)).isfinite().all()
        assert len(about["class_names"]) == model.num_classes


# --- ONNX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", EVERY)
@torch.inference_mode()
def test_onnx_runtime_and_torch_agree_at_every_size(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = network(**options)
    file = tmp_path / "a.onnx"
    write_onnx(file, model)
    sizes = [(2, 8, 40), (1, 64, 24), (3, 16, 16)]
    if options["padding"] == "valid":
        sizes = [(2, 92, 124), (1, 100, 92), (3, 108, 108)]
    for batch, height, width in sizes:
        images = torch.randn(batch, 1, height, width)
        assert deviation(run_onnx(file, images), model(images)) <= 1e-5


@pytest.mark.parametrize("depth", [1, 2, 4])
@torch.inference_mode()
def test_crops_are_right_at_every_depth(tmp_path: Path, depth: int) -> None:
    model = network(depth=depth, padding="valid", in_channels=3)
    side = {1: 22, 2: 44, 4: 204}[depth]
    write_onnx(tmp_path / "a.onnx", model)
    images = torch.rand(1, 3, side, side)
    assert deviation(run_onnx(tmp_path / "a.onnx", images), model(images)) <= 1e-5


def test_an_onnx_file_says_what_it_takes(tmp_path: Path) -> None:
    about = {"class_names": ["cell", "membrane"], "full_scale": 4095, "title": "a"}
    write_onnx(tmp_path / "a.onnx", network(norm="batch"), about=about)
    written = onnx.load(tmp_path / "a.onnx")
    told = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(told["class_names"]) == ["cell", "membrane"]
    assert told["title"] == "a"
    assert "16-bit images / 4095; height and width one of 8, 16, 24, ..." in told["input"]
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape) == ("image", ["batch", 1, "height", "width"])
    assert (given.name, given.shape) == ("logits", ["batch", 3, "height", "width"])
    weights = {one.name: tuple(one.dims) for one in written.graph.initializer}
    folded = fold_batch_norm(network(norm="batch")).state_dict()
    assert weights == {name: tuple(value.shape) for name, value in folded.items()}


def test_sizes_that_are_told_are_those_that_fit() -> None:
    paper = UNet(3, 2, base_channels=1, padding="valid")
    told = describe_input(paper, {"even_brightness": True, "full_scale": 0})
    assert told.startswith("red, green and blue from 0 to 1: 8-bit images / 255, then each image")
    assert told.endswith("188, 204, 220, ...")


def test_an_onnx_file_of_a_failed_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finite"):
        write_onnx(tmp_path / "a.onnx", changed(float("nan"))["model"])
    with pytest.raises(ValueError, match="about must hold"):
        write_onnx(tmp_path / "a.onnx", network(), about={"image": np.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_without_the_package_onnx_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx"):
        write_onnx(tmp_path / "a.onnx", network())
    write_network(tmp_path / "a.safetensors", network())  # which needs nothing


# --- the command ----------------------------------------------------------------------------------


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short training on six small images with a square each."""
    folder = tmp_path_factory.mktemp("own")
    for index in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 + index : 20, 6:22] = 255
        for kind, pixels in (("images", mask // 2 + 20), ("masks", mask)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{kind}/{index}.png")
    result = call("train", folder, "--out", folder / "run", "--steps", 2, "--device", "cpu")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(trained, tmp_path / "nuclei"))


def test_from_a_run_to_a_network_file(run: Path) -> None:
    result = call("export", run, "--to", "web")
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    model, about = load_network(run / "network.safetensors")
    parameters = sum(value.numel() for value in model.state_dict().values())
    size = (run / "network.safetensors").stat().st_size
    assert f"{run / 'network.safetensors'}: {size / 1000:,.0f} kB, {parameters:,} " in line
    assert "in half precision" in line
    assert f"load_network('{run / 'network.safetensors'}')" in line
    assert about["class_names"] == ["background", "foreground"]
    assert about["title"] == "run"
    assert about["dataset"] == "images"
    assert about["steps"] == 2
    assert about["scores"] == json.loads((run / "run.json").read_text())["scores"]
    images = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        expected = Run.load(run).model(images)
        assert deviation(model(images), expected) <= 2e-3, "half precision, no more"


def test_from_a_run_to_onnx(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "nuclei.onnx"
    result = call("export", run, "--to", "onnx", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"onnxruntime.InferenceSession('{out}')" in result.output
    images = torch.rand(2, 1, 48, 32)
    with torch.inference_mode():
        assert deviation(run_onnx(out, images), Run.load(run).model(images)) <= 1e-5
    told = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(told["class_names"]) == ["background", "foreground"]
    assert told["input"].startswith("gray values from 0 to 1: 8-bit images / 255; height")


@pytest.mark.parametrize("to", EXPORTS)
def test_nothing_is_written_over_unless_allowed(run: Path, to: str) -> None:
    file = run / EXPORTS[to][0]
    file.write_text("mine")
    refused = call("export", run, "--to", to)
    assert refused.exit_code == 1
    assert f"error: {file} is there already" in refused.output
    assert file.read_text() == "mine"
    image = run.parent / "image.png"
    Image.new("L", (40, 32), 90).save(image)
    allowed = call("export", run, "--to", to, "--overwrite", "--image", image)
    assert allowed.exit_code == 0, allowed.output
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(
    "name", ["model.safetensors", "run.json", "report.html", "../nuclei/run.json"]
)
def test_a_run_s_own_files_are_never_written_over(run: Path, name: str) -> None:
    before = (run / name).read_bytes()
    result = call("export", run, "--to", "web", "--out", run / name, "--overwrite")
    assert result.exit_code == 1
    assert "belongs to the run" in result.output
    assert (run / name).read_bytes() == before


def test_what_cannot_be_exported_is_said(run: Path, tmp_path: Path) -> None:
    unknown = call("export", run, "--to", "coreml")
    assert unknown.exit_code == 1
    assert "--to coreml is not known; there are web, page, onnx" in unknown.output
    assert "no run folder" in call("export", tmp_path, "--to", "web").output
    assert "is a folder" in call("export", run, "--to", "web", "--out", tmp_path).output
    assert "say --image FILE" in call("export", run, "--to", "page").output
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for image in (broken, tmp_path / "gone.png"):
        refused = call("export", run, "--to", "page", "--image", image)
        assert refused.exit_code == 1
        assert f"error: {image}: " in refused.output
    assert not (run / "network.html").exists()
    about = json.loads((run / "run.json").read_text())
    about |= {"status": "interrupted", "steps_done": 1}
    (run / "run.json").write_text(json.dumps(about))
    stopped = call("export", run, "--to", "web")
    assert stopped.exit_code == 1
    assert "stopped after 1 of 2 steps" in stopped.output
    with pytest.raises(RunError, match="stopped after"):
        export_run(run, "onnx")
    (run / "model.safetensors").unlink()
    assert "has not ended" in call("export", run, "--to", "web").output
    assert not (run / "network.safetensors").exists()


# --- what precision costs -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> Any:
    path = Path(__file__).parents[1] / "scripts" / "precision.py"
    spec = importlib.util.spec_from_file_location("precision", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_way_that_is_measured_uses_the_same_network(script: Any, tmp_path: Path) -> None:
    model = fold_batch_norm(network(norm="batch"))
    images = [np.random.default_rng(seed).random((1, 32, 32), np.float32) for seed in range(3)]
    ways = script.prepare(model, images, tmp_path)
    expected = ways[0].predict(images[0])
    assert np.allclose(expected.sum(0), 1, atol=1e-6)
    limits = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 5e-2, "int8": 0.3}
    sizes = {}
    for way in ways:
        found = way.predict(images[0])
        coarsest = max(way.weights, way.arithmetic.split(",")[0], key=list(limits).index)
        assert np.abs(found - expected).max() <= limits[coarsest], way
        if coarsest != "float32":
            assert np.abs(found - expected).max() > 1e-6, f"{way} is not what it says"
        sizes[way.weights, way.runtime] = way.file.stat().st_size
    assert len(ways) == 7
    assert sizes["float16", "PyTorch"] < 0.6 * sizes["float32", "PyTorch"]
    assert sizes["int8", "ONNX Runtime"] < 0.8 * sizes["float32", "ONNX Runtime"]


def test_a_network_in_half_precision_does_not_claim_that_it_costs_nothing(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_network(tmp_path / "a.safetensors", network())
    model, _ = read_network(tmp_path / "a.safetensors")
    ways = script.prepare(model, [np.zeros((1, 32, 32), np.float32)], tmp_path)
    assert "float16" not in {way.weights for way in ways}
    assert "float16 already" in capsys.readouterr().out
