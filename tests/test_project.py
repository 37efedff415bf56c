"""The files around the package agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from unet_tutorial import __version__

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
META: dict[str, Any] = PROJECT["project"]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
# conda-forge has other names for these.
CONDA = {"matplotlib-base": "matplotlib", "pytorch": "torch", "playwright-python": "playwright"}


def requirements() -> dict[str, str]:
    """Map every package that pyproject.toml names to its range."""
    lines = list(META["dependencies"])
    for extra in META["optional-dependencies"].values():
        lines += extra
    parsed = map(Requirement, lines)
    return {
        canonicalize_name(one.name): str(one.specifier)
        for one in parsed
        if one.name != META["name"]
    }


def pinned() -> dict[str, str]:
    """Map every pinned package to its version."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def tracked_files() -> list[Path]:
    """List the files that are, or are about to be, under version control."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("no checkout of git")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def texts() -> dict[Path, str]:
    """Read every tracked text file."""
    found = {}
    for file in tracked_files():
        try:
            found[file] = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def test_conda_users_get_the_same_packages_in_the_same_ranges() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines: list[str] = []
    for entry in environment["dependencies"]:
        lines += entry["pip"] if isinstance(entry, dict) else [entry]
    conda = {}
    for line in lines:
        if line.startswith("--") or line == "pip":
            continue
        one = Requirement(line)
        conda[canonicalize_name(CONDA.get(one.name, one.name))] = str(one.specifier)
    assert conda.pop("python") == META["requires-python"]
    assert conda == requirements()


def test_every_pin_lies_in_its_range_and_every_range_has_a_pin() -> None:
    pins = pinned()
    for name, allowed in requirements().items():
        assert name in pins, f"{name} is not in constraints.txt: make constraints"
        assert Requirement(f"{name}{allowed}").specifier.contains(pins[name]), name


def test_pins_are_versions_and_nothing_of_one_machine() -> None:
    for name, version in pinned().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_versions_and_addresses_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert META["version"] == citation["version"]
    assert META["version"] in changes
    assert __version__ in (META["version"], "unknown")
    address = CONFIG["repository"]["url"]
    assert META["urls"]["Repository"] == address
    assert citation["repository-code"] == address


def test_nobody_else_s_repository_is_called_ours() -> None:
    address = CONFIG["repository"]["url"]
    owner = re.escape(address.rsplit("/", 1)[0])
    for file, text in texts().items():
        for found in re.findall(rf"{owner}/[\w.-]+", text):
            assert found.removesuffix(".git").rstrip(".") == address, file


def test_licenses_are_there_and_named() -> None:
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "CC BY 4.0" in (ROOT / "LICENSE-TEXT.md").read_text(encoding="utf-8")
    assert META["license"] == "MIT"
    assert "CC BY 4.0" in CONFIG["html"]["extra_footer"]


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    # Put together from pieces, so that this file does not name them either.
    hosts = [r"py" r"pi\.(org|python\.org)", r"files" r"\.pythonhosted", r"conda" r"\.anaconda"]
    options = ["--" + name for name in ("index-url", "extra-index-url", "find-links")]
    homes = ["/" + name for name in (r"home/\w", "root/", "work/", r"Users/\w")]
    forbidden = re.compile("|".join([*hosts, *options, *homes]))
    for file, text in texts().items():
        found = forbidden.search(text)
        assert not found, f"{file.relative_to(ROOT)}: {found and found[0]}"


def test_every_target_of_the_makefile_is_explained_by_make_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    explained = {line.split()[0] for line in said.stdout.splitlines() if line[:1].isalpha()}
    assert set(phony[1].split()) <= explained


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_and_file_that_a_document_names_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", text):
        if re.search(rf"`(?:[A-Z_]+=\S+ )*make {target}\b|^\s*make {target}\b", text, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_workflow_and_local_run_are_the_same_script() -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert ".ci/run" in workflow
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
