"""The files around the package agree with each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from typer.testing import CliRunner

from unet_tutorial import __version__
from unet_tutorial._address import read_address
from unet_tutorial._tables import fill_tables
from unet_tutorial.chapters import list_chapters
from unet_tutorial.cli import app

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
META: dict[str, Any] = PROJECT["project"]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
# conda-forge has other names for these.
CONDA = {
    "matplotlib-base": "matplotlib",
    "pytorch": "torch",
    "playwright-python": "playwright",
    "python-build": "build",
}


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


def conda(name: str) -> dict[str, str]:
    """Map every package of an environment file, by its name for pip, to its range."""
    environment = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    lines: list[str] = []
    for entry in environment["dependencies"]:
        lines += entry["pip"] if isinstance(entry, dict) else [entry]
    found = {}
    for line in lines:
        if line.startswith("--") or line == "pip":
            continue
        one = Requirement(line.replace("python=3", "python==3"))
        found[canonicalize_name(CONDA.get(one.name, one.name))] = str(one.specifier)
    return found


def test_conda_users_get_the_same_packages_in_the_same_ranges() -> None:
    packages = conda("environment.yml")
    assert packages.pop("python") == META["requires-python"]
    assert packages == requirements()


def test_binder_gets_what_the_chapters_need_and_no_more() -> None:
    packages, known = conda(".binder/environment.yml"), requirements()
    # Binder reads no range of Python, only a version.
    version = packages.pop("python").removeprefix("==")
    assert Requirement(f"python{META['requires-python']}").specifier.contains(version)
    assert packages == {name: known[name] for name in packages if name in known}
    needed = {canonicalize_name(Requirement(line).name) for line in META["dependencies"]}
    assert set(packages) == needed | {"ipykernel", "jupyterlab", "onnx", "onnxruntime"}
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & 0o111, "Binder does not run it"
    assert "pip install" in script.read_text(encoding="utf-8")


def test_every_pin_lies_in_its_range_and_every_range_has_a_pin() -> None:
    pins = pinned()
    for name, allowed in requirements().items():
        assert name in pins, f"{name} is not in constraints.txt: make constraints"
        assert Requirement(f"{name}{allowed}").specifier.contains(pins[name]), name


def test_pins_are_versions_and_nothing_of_one_machine() -> None:
    for name, version in pinned().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_versions_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert META["version"] == citation["version"]
    assert META["version"] in changes
    assert __version__ in (META["version"], "unknown")


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
    phony = re.search(r"^\.PHONY: (.*)$", makefile.replace("\\\n", " "), re.MULTILINE)
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


# ---- README

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_numbers_of_readme_are_the_measured_ones() -> None:
    assert fill_tables(README, ROOT / "book" / "results") == README, "make tables"
    assert README.count("<!-- table ") >= 2
    bare = "<!-- table board | by: rung | values: dice -->\n<!-- /table -->"
    assert "| + skip connections | 0." in fill_tables(bare, ROOT / "book" / "results")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("<!-- table board | by: rung | values: dice -->", ValueError, "1 tables begin and 0 end"),
        (
            "<!-- table gone | by: a | values: b -->\n<!-- /table -->",
            FileNotFoundError,
            "NAME=gone",
        ),
        (
            "<!-- table board | by: rung -->\n<!-- /table -->",
            ValueError,
            "has by: expected by, val",
        ),
        ("<!-- table board | by: rung | values: luck -->\n<!-- /table -->", ValueError, "luck"),
    ],
)
def test_a_table_that_cannot_be_filled_says_why(
    text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        fill_tables(text, ROOT / "book" / "results")


def test_the_tables_command_carries_a_new_number(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "book" / "results", tmp_path / "book" / "results")
    for name in ("README.md", "_toc.yml"):
        shutil.copy(ROOT / name, tmp_path)
    command = ["results", "tables", "--root", str(tmp_path)]
    assert "nothing to change" in CliRunner().invoke(app, command).output
    file = tmp_path / "book" / "results" / "isbi.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    for row in about["rows"]:
        row["dice"] = 0.5
    file.write_text(json.dumps(about), encoding="utf-8")
    assert "README.md: changed" in CliRunner().invoke(app, command).output
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert written.count("| 0.500 ± 0.000 |") == 4
    assert "root of a checkout" in CliRunner().invoke(app, [*command[:3], "/"]).output


def test_every_chapter_is_one_press_away_from_colab() -> None:
    there, branch = read_address(ROOT), CONFIG["repository"]["branch"]
    folder = (
        f"https://colab.research.google.com/github/{there.owner}/{there.name}/blob/{branch}/book"
    )
    for chapter in list_chapters(ROOT):
        assert f"({folder}/{chapter.name})" in README, "a link in the row of the chapter"
    linked = re.findall(rf"{re.escape(folder)}/([\w.-]+)\)", README)
    assert set(linked) == {chapter.name for chapter in list_chapters(ROOT)}
    binder = (
        f"https://mybinder.org/v2/gh/{there.owner}/{there.name}/{branch}?urlpath=lab/tree/book/"
    )
    for name in re.findall(rf"{re.escape(binder)}([\w.-]+)", README):
        assert (ROOT / "book" / name).is_file()
    assert binder in README


def test_the_pictures_of_readme_are_there_move_and_are_small() -> None:
    files = re.findall(r'(?:src|srcset)="([^"]+)"|\]\((book/images/[^)]+)\)', README)
    names = {one or other for one, other in files}
    assert len(names) >= 5
    for name in names:
        assert (ROOT / name).stat().st_size < 1e6, name
        if name.endswith(".webp"):
            with Image.open(ROOT / name) as picture:
                assert picture.n_frames > 10  # type: ignore[attr-defined]
        else:
            assert "<title>" in (ROOT / name).read_text(encoding="utf-8")
    assert {"book/images/live-u.webp", "book/images/live-u-dark.webp"} <= names
    assert min(map(len, re.findall(r'alt="([^"]*)"', README))) > 40


# ---- what runs on GitHub

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
# All that a job of ours may do beyond reading the code, and why.
MAY = {
    ("pages", "build"): {"pages": "read"},  # where the pages will be
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
    ("newest", "chapters"): {"issues": "write"},
    ("links", "links"): {"issues": "write"},
}


def jobs(file: Path) -> dict[str, dict[str, Any]]:
    """Read the jobs of a workflow."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]


def steps(file: Path) -> list[dict[str, Any]]:
    """Read the steps of all its jobs."""
    return [step for job in jobs(file).values() for step in job["steps"]]


def test_there_are_the_workflows_that_are_needed() -> None:
    assert {file.stem for file in WORKFLOWS} == {"tests", "pages", "newest", "links"}


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("vendor.github-workflows", [f".github/workflows/{file.name}" for file in WORKFLOWS]),
        ("vendor.dependabot", [".github/dependabot.yml"]),
        ("vendor.citation-file-format", ["CITATION.cff"]),
    ],
)
def test_github_understands_its_files(schema: str, names: list[str]) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *names]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@workflow
def test_a_workflow_may_do_no_more_than_it_must(file: Path) -> None:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert content["permissions"] == {"contents": "read"}
    for name, job in jobs(file).items():
        beyond = dict(job.get("permissions", {}))
        assert beyond.pop("contents", "read") == "read"
        assert beyond == MAY.get((file.stem, name), {}), name
        assert 5 <= job["timeout-minutes"] <= 60, "GitHub's own limit is six hours"


@workflow
def test_actions_are_of_a_version_and_pip_is_not_asked_twice(file: Path) -> None:
    for step in steps(file):
        action = step.get("uses", "")
        assert not action or re.fullmatch(r"[\w.-]+/[\w.-]+@v[0-9]+", action), action
        if action.startswith("actions/setup-python@"):
            assert step["with"]["cache"] == "pip"
            assert (ROOT / step["with"]["cache-dependency-path"]).exists()
    used = {step["uses"] for one in WORKFLOWS for step in steps(one) if "uses" in step}
    assert len(used) == len({action.split("@")[0] for action in used}), "one version of each"


@workflow
def test_every_command_of_a_workflow_exists(file: Path) -> None:
    commands = [step["run"] for step in steps(file) if "run" in step]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = 0
    for command in commands:
        for target in re.findall(r"\bmake ([\w./-]+)", command):
            rule = re.sub(r"\.venv/\.installed-.*", "$(VENV)/.installed-%", target)
            assert re.search(rf"^{re.escape(rule)}:", makefile, re.MULTILINE), target
            named += 1
        for option in re.findall(r"\b([A-Z]+)=", command):
            assert re.search(rf"^{option} \?=", makefile, re.MULTILINE), option
        for script in re.findall(r"\.ci/\w+", command):
            assert (ROOT / script).stat().st_mode & 0o111, script
            named += 1
        # What somebody else can choose, such as a branch's name, must not become a command.
        assert "${{" not in command
        if "|" in command:  # else a failure before the bar goes unnoticed
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            assert content["defaults"]["run"]["shell"] == "bash"
    assert named


def test_the_pages_of_a_fork_have_the_fork_s_address() -> None:
    build = jobs(ROOT / ".github" / "workflows" / "pages.yml")["build"]["steps"]
    runs = [step.get("run", step.get("uses", "")) for step in build]
    address = next(i for i, run in enumerate(runs) if run.startswith("make address"))
    assert 'URL="$GITHUB_REPOSITORY"' in runs[address]
    assert address < runs.index("make site")
    built = next(step for step in build if "upload-pages-artifact" in step.get("uses", ""))
    assert built["with"]["path"] == "_build/html"
    assert not any("git commit" in run or "git push" in run for run in runs)


# ---- the issue that a scheduled workflow keeps

GH = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
while [ $# -gt 0 ]; do
    [ "$1" != --body-file ] || cat "$2" >> "$CALLS"
    shift
done
"""


def report(tmp_path: Path, issues: str, *arguments: str) -> tuple[int, str]:
    """Run the script with a `gh` that lists these issues and writes down what it is asked."""
    gh, calls = tmp_path / "gh", tmp_path / "calls"
    listing = f"if [ \"$2\" = list ]; then echo '{issues}'; exit; fi\n"
    gh.write_text(GH.replace("echo", listing + "echo", 1))
    gh.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    environment |= {"GITHUB_REPOSITORY": "mina/unet", "GITHUB_RUN_ID": "7"}
    command = ["bash", str(ROOT / ".ci" / "report"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.returncode, calls.read_text() if calls.exists() else done.stderr


def test_what_broke_opens_one_issue_or_adds_to_it(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 40_000 + " the end\n")
    ours = '[{"number": 3, "title": "Broken today"}, {"number": 5, "title": "Broken"}]'
    code, said = report(tmp_path, "[]", "Broken", "failure", "log", "gone")
    assert code == 1, "the workflow is red"
    assert said.startswith("issue create --title Broken --body-file")
    assert "https://github.com/mina/unet/actions/runs/7" in said
    assert "the end" in said
    assert "(was not written)" in said
    assert len(said) < 65_536, "what an issue holds"
    (tmp_path / "calls").unlink()
    code, said = report(tmp_path, ours, "Broken", "skipped", "log")
    assert (code, said.split(" --")[0]) == (1, "issue comment 5")


def test_what_is_well_again_closes_its_issue(tmp_path: Path) -> None:
    ours = '[{"number": 5, "title": "Broken"}]'
    code, said = report(tmp_path, ours, "Broken", "success", "log")
    assert (code, said.split(" --")[0]) == (0, "issue close 5")
    (tmp_path / "calls").unlink()
    assert report(tmp_path, "[]", "Broken", "success", "log") == (0, "")
    assert report(tmp_path, "[]", "Broken")[0] == 2
