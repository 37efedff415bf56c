"""The command line, as somebody types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, MakeBook
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
