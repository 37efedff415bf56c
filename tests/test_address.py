"""The repository's address stands in one place, and one command carries it to all others."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from typer.testing import CliRunner

from unet_tutorial._address import PLACES, carry_address, parse_address, read_address
from unet_tutorial.chapters import list_chapters
from unet_tutorial.cli import app

NEW = "https://github.com/Mina-2/my.unet"
NEW_SITE = "https://mina-2.github.io/my.unet/"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """All files in which the address stands."""
    for place in ("_config.yml", "_toc.yml", *PLACES):
        for file in ROOT.glob(place):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return tmp_path


def contents(root: Path) -> dict[str, bytes]:
    """Read all files."""
    files = (file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def test_everything_has_the_address_of_the_configuration(checkout: Path) -> None:
    assert carry_address(checkout) == [], "make address"


def test_nothing_of_the_old_address_is_left_and_all_else_stays(checkout: Path) -> None:
    old, before = read_address(checkout), contents(checkout)
    changed = carry_address(checkout, NEW)
    after = contents(checkout)
    assert {file.relative_to(checkout).as_posix() for file in changed} == {
        name for name in before if before[name] != after[name]
    }
    forms = [f"{old.owner}/{old.name}", old.site[:-1], f"cd {old.name}\n"]
    for name, content in after.items():
        text = content.decode()
        assert not [form for form in forms if form in text], name
        # Undone by hand, every file is what it was, to the byte.
        undone = text.replace(NEW_SITE, old.site).replace("Mina-2/my.unet", forms[0])
        assert undone.replace("cd my.unet\n", forms[2]).encode() == before[name], name


def test_every_kind_of_place_is_reached(checkout: Path) -> None:
    carry_address(checkout, NEW)
    config = yaml.safe_load((checkout / "_config.yml").read_text(encoding="utf-8"))
    assert config["repository"]["url"] == NEW
    assert config["html"]["baseurl"] == NEW_SITE
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["urls"].values()) == {NEW, NEW_SITE}
    citation = yaml.safe_load((checkout / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["repository-code"], citation["url"]) == (NEW, NEW_SITE)
    for chapter in list_chapters(checkout):
        assert f"git+{NEW}\\n" in chapter.read_text(encoding="utf-8"), "the install line"
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    assert f"git clone {NEW}\ncd my.unet\n" in readme
    for form in (
        f"{NEW}/actions/workflows/tests.yml/badge.svg",
        "colab.research.google.com/github/Mina-2/my.unet/blob/",
        "mybinder.org/v2/gh/Mina-2/my.unet/",
        f"({NEW_SITE})",
    ):
        assert form in readme


def test_there_and_back_is_where_we_were_and_twice_is_once(checkout: Path) -> None:
    before, old = contents(checkout), read_address(checkout)
    assert carry_address(checkout, NEW)
    assert carry_address(checkout, NEW) == []
    assert carry_address(checkout) == []
    assert carry_address(checkout, old.repository)
    assert contents(checkout) == before


def test_an_edited_configuration_is_enough(checkout: Path) -> None:
    file, old = checkout / "_config.yml", read_address(checkout)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(f"url: {old.repository}", f"url: '{NEW}'"), encoding="utf-8")
    carry_address(checkout)
    assert read_address(checkout) == parse_address(NEW)
    assert NEW in (checkout / "README.md").read_text(encoding="utf-8")
    assert NEW_SITE in (checkout / "pyproject.toml").read_text(encoding="utf-8")


def test_a_run_that_was_cut_short_is_run_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unet_tutorial import _address

    write, written = _address.write_whole, []

    def die(path: Path, *rest: Any) -> Path:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, *rest)

    monkeypatch.setattr(_address, "write_whole", die)
    with pytest.raises(KeyboardInterrupt):
        carry_address(checkout, NEW)
    monkeypatch.undo()
    assert carry_address(checkout), "some were left"
    carry_address(checkout, read_address(ROOT).repository)
    assert contents(checkout) == {name: (ROOT / name).read_bytes() for name in contents(checkout)}


def test_a_domain_of_one_s_own_stays_until_another_is_named(checkout: Path) -> None:
    carry_address(checkout, site="https://unet.example.org")
    assert read_address(checkout).site == "https://unet.example.org/"
    carry_address(checkout, NEW)
    assert read_address(checkout).site == "https://unet.example.org/"
    assert "https://unet.example.org/" in (checkout / "CITATION.cff").read_text(encoding="utf-8")
    carry_address(checkout, site=NEW_SITE)
    assert read_address(checkout).site == NEW_SITE


def test_a_longer_name_is_somebody_else_s(checkout: Path) -> None:
    old = read_address(checkout).repository
    others = f"{old}-fork {old}.js {old.replace('github.com', 'github.community')}\n"
    (checkout / "data" / "more.md").write_text(f"{others}{old}.git {old}. {old}#top\n")
    carry_address(checkout, NEW)
    text = (checkout / "data" / "more.md").read_text()
    assert text == f"{others}{NEW}.git {NEW}. {NEW}#top\n"


@pytest.mark.parametrize(
    "form",
    [
        "mina/my-unet",
        "github.com/mina/my-unet/",
        "https://github.com/mina/my-unet.git",
        "git@github.com:mina/my-unet.git",
        "ssh://git@github.com/mina/my-unet",
    ],
)
def test_people_copy_addresses_in_many_forms(form: str) -> None:
    assert parse_address(form).repository == "https://github.com/mina/my-unet"


@pytest.mark.parametrize(
    "wrong",
    [
        "https://gitlab.com/mina/unet",
        "my-unet",
        "https://github.com/mina",
        "https://github.com/mina/unet/tree/main",
        "mina/un et",
        "-mina/unet",
        "mina/..",
        "mina/unet'; ls",
    ],
)
def test_what_is_no_address_is_refused_and_nothing_is_written(checkout: Path, wrong: str) -> None:
    before = contents(checkout)
    said = CliRunner().invoke(app, ["chapters", "address", "--root", str(checkout), "--", wrong])
    assert said.exit_code == 1
    assert wrong in said.output
    assert "expected https://github.com/OWNER/NAME" in " ".join(said.output.split())
    assert contents(checkout) == before


def test_a_wrong_site_and_a_folder_that_is_no_checkout_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no address of a site: expected https://HOST/"):
        parse_address("a/b", "ftp://x")
    with pytest.raises(FileNotFoundError, match="root of a checkout"):
        carry_address(tmp_path)


def test_the_command_says_what_it_changed(checkout: Path) -> None:
    command = ["chapters", "address", "--root", str(checkout)]
    said = CliRunner().invoke(app, [*command, NEW]).output
    assert "README.md: changed" in said
    assert f"repository {NEW}, pages {NEW_SITE}" in said
    assert "nothing to change" in CliRunner().invoke(app, command).output


def test_no_other_file_holds_the_address() -> None:
    # What the command does not know would keep the old address.
    old = read_address(ROOT)
    known = {file for place in ("_config.yml", *PLACES) for file in ROOT.glob(place)}
    form = re.compile(rf"{re.escape(old.owner)}/{re.escape(old.name)}\b|{re.escape(old.site)}")
    skipped = {".git", ".venv", "_build", "tests", "networks", ".mypy_cache", ".ruff_cache"}
    skipped |= {"PKG-INFO", "unet_tutorial.egg-info"}  # made from README
    for file in ROOT.rglob("*"):
        parts = set(file.relative_to(ROOT).parts)
        if file in known or not file.is_file() or parts & skipped:
            continue
        try:
            assert not form.search(file.read_text(encoding="utf-8")), file
        except UnicodeDecodeError:
            continue
