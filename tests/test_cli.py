"""The command line, as somebody types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from conftest import ROOT, MakeBook
from PIL import Image
from typer.testing import CliRunner

from unet_tutorial import __version__
from unet_tutorial.cli import app

runner = CliRunner()


def test_version_is_the_package_s() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == __version__


@pytest.mark.parametrize("command", [[], ["chapters"]])
def test_without_a_command_help_is_shown(command: list[str]) -> None:
    result = runner.invoke(app, command)
    assert "Usage" in result.output
    assert "chapters" in result.output


@pytest.mark.parametrize("command", ["list", "run", "refresh", "site"])
def test_every_command_explains_itself(command: str) -> None:
    result = runner.invoke(app, ["chapters", command, "--help"])
    assert result.exit_code == 0
    assert "--root" in result.output


def test_list_shows_the_chapters_of_the_book() -> None:
    result = runner.invoke(app, ["chapters", "list", "--root", str(ROOT)])
    assert result.exit_code == 0
    assert "4-skip-connections.ipynb" in result.output.splitlines()


def test_run_tells_how_far_it_is_and_skips_what_is_unchanged(make_book: MakeBook) -> None:
    root = make_book(first=["print(seed)"], second=["profile"])
    command = ["chapters", "run", "--root", str(root), "--seed", "7", "--profile", "smoke"]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "[1/2] first: running" in result.output
    assert "[2/2] second: done in" in result.output
    assert "7" in (root / "_build" / "executed" / "first.ipynb").read_text()
    again = runner.invoke(app, command)
    assert again.output.count("unchanged") == 2
    assert "running" not in again.output
    assert "running" in runner.invoke(app, [*command, "--force"]).output


def test_a_failing_chapter_is_a_message_not_a_traceback(make_book: MakeBook) -> None:
    root = make_book(first=["undefined_name"])
    result = runner.invoke(app, ["chapters", "run", "--root", str(root)])
    assert result.exit_code == 1
    assert "first.ipynb" in result.output
    assert "NameError: name 'undefined_name' is not defined" in result.output
    assert "Traceback" not in result.output


def test_outside_a_checkout_the_message_says_what_to_do(tmp_path: Path) -> None:
    for command in ("list", "run", "refresh", "site"):
        result = runner.invoke(app, ["chapters", command, "--root", str(tmp_path)])
        assert result.exit_code == 1
        assert "root of a checkout" in result.output


def test_a_seed_that_is_no_number_is_refused(make_book: MakeBook) -> None:
    root = make_book(first=["1"])
    result = runner.invoke(app, ["chapters", "run", "--root", str(root), "--seed", "x"])
    assert result.exit_code != 0
    assert "'x'" in result.output


# --- your own images ------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Six small images with a bright square each, and their masks."""
    for index in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 + index : 20, 6:22] = 255
        noise = np.random.default_rng(index).integers(0, 60, mask.shape).astype(np.uint8)
        for kind, pixels in (("images", mask // 2 + noise), ("masks", mask)):
            (tmp_path / "own" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / f"own/{kind}/{index}.png")
    return tmp_path / "own"


def call(*arguments: object) -> Result:
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_from_a_folder_to_masks_by_two_commands(own: Path, tmp_path: Path) -> None:
    run, results = tmp_path / "run", tmp_path / "results"
    trained = call("train", own, "--out", run, "--steps", 2, "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    assert "6 images of 32×32, 1 held out; masks are 0 and 255" in trained.output
    assert "held out: Dice foreground" in trained.output
    assert f"unet-tutorial predict --run {run}" in trained.output
    assert (run / "report.html").exists()
    found = call("predict", "--run", run, own / "images", "--out", results)
    assert found.exit_code == 0, found.output
    assert len(list(results.iterdir())) == 12
    again = call("predict", "--run", run, own / "images", "--out", results)
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    (own / "images/2.png").write_bytes(b"broken")
    more = call("predict", "--run", run, own / "images", "--out", results, "--overwrite")
    assert more.exit_code == 1
    assert "2.png" in more.output
    assert "cannot be read" in more.output
    assert "[6/6] 5.png" in more.output
    finished = call("train", own, "--out", run, "--steps", 2)
    assert finished.exit_code == 1
    assert "finished run" in finished.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say where the images are"),
        (["OWN", "--images", "OWN/images", "--masks", "OWN/masks"], "say where the images are"),
        (["--images", "OWN/images"], "--masks is missing"),
        (["--masks", "OWN/masks"], "--images is missing"),
        (["OWN", "--validation", "nowhere"], "neither a folder nor a number like 0.2"),
        (["OWN", "--validation", "1.5"], "fraction from 0 to below 1"),
        (["OWN", "--validation-images", "OWN/images"], "are given together"),
        (
            [
                "OWN",
                "--validation",
                "0.2",
                "--validation-images",
                "OWN",
                "--validation-masks",
                "OWN",
            ],
            "give --validation, or --validation-images",
        ),
        (["OWN/images"], "looked for one of images"),
        (["OWN", "--mask-values", "colors"], "'colors'"),
        (["OWN", "--classes", "cell"], "name 2 classes, the background first"),
        (["OWN", "--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_meant_is_said_and_nothing_written(
    own: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    given = [option.replace("OWN", str(own)) for option in options]
    result = call("train", *given, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


def test_held_out_images_may_lie_elsewhere(own: Path, tmp_path: Path) -> None:
    other = own.with_name("other")
    shutil.copytree(own, other)
    options = ["--images", own / "images", "--masks", own / "masks", "--steps", 1]
    for name, held_out in (
        ("a", ["--validation", other]),
        ("b", ["--validation-images", other / "images", "--validation-masks", other / "masks"]),
    ):
        result = call("train", *options, *held_out, "--out", tmp_path / name, "--device", "cpu")
        assert "12 images of 32×32, 6 held out" in result.output


def test_what_is_an_option_here_is_called_one(own: Path, tmp_path: Path) -> None:
    for file in (own / "masks").iterdir():
        mask = np.zeros((32, 32), np.uint8)
        mask[2:9, 2:9], mask[15:22, 15:22] = 1, 2
        Image.fromarray(mask).save(file)
    result = call("train", own, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "--mask-values classes" in result.output
    assert "mask_values=" not in result.output


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unet_tutorial.runs.fit", stop)
    result = call("train", own, "--out", tmp_path / "run", "--steps", 1, "--device", "cpu")
    assert result.exit_code == 130
    assert "the same command goes on" in result.output


def test_a_check_ends_with_1_only_if_something_must_be_repaired(own: Path) -> None:
    good = call("data", "check", own)
    assert good.exit_code == 0, good.output
    assert "0 to repair, 1 note: nothing stands in the way of a training" in good.output
    (own / "masks/3.png").unlink()
    for result in (
        call("data", "check", own),
        call("data", "check", own / "images", own / "masks"),
    ):
        assert result.exit_code == 1
        assert "REPAIR  image without a mask: 3.png" in result.output
        assert "1 to repair, 1 note\n" in result.output
    assert "got 3" in call("data", "check", own, own, own).output


def test_predict_without_a_run_says_so(tmp_path: Path) -> None:
    result = call("predict", "--run", tmp_path, "a.png", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no run folder" in result.output
