"""What others install: wheel and sdist, and a chapter in an empty environment such as Colab's.

All tests share one environment that begins with torch and ipykernel alone. They take a minute or
two, so `make package` runs them in a place of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from conftest import CI, ROOT
from packaging.utils import canonicalize_name

from unet_tutorial._address import read_address
from unet_tutorial.chapters import list_chapters

pytestmark = pytest.mark.package

CHAPTER = "4-skip-connections"
#: What an environment for running notebooks or classifying photographs would bring.
HEAVY = {"jupyter-server", "jupyterlab", "notebook", "nbconvert", "jupyter-book", "torchvision"}


#: Most of what is installed is never imported.
UNCOMPILED = {"PIP_COMPILE": "0"}
#: A path of this environment would lend its packages to the empty one.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
ENVIRONMENT |= UNCOMPILED


def pip_for(python: Path) -> list[str]:
    """Begin a command of this environment's pip, a newer and faster one, that serves another."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    return [*pip, "--quiet"]


def run(command: list[Any], **options: Any) -> str:
    """Run a command; if it fails, fail with all that it said."""
    options = {"env": ENVIRONMENT, **options}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        pytest.fail(f"{shlex.join(map(str, command))}\n{said}")
    return done.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone of what lies here, changes that are not committed included."""
    listing = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no checkout of git")
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    run([*git, "init", "-q", "-b", "main"], cwd=copy)
    run([*git, "add", "--all"], cwd=copy)
    run([*git, "commit", "-q", "-m", "test"], cwd=copy)
    return copy


class Built(NamedTuple):
    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions; the wheel is made from what the sdist holds."""
    into = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", into, checkout], env=os.environ)
    (sdist,), (wheel,) = into.glob("*.tar.gz"), into.glob("*.whl")
    return Built(sdist, wheel)


def test_the_wheel_holds_all_that_the_package_reads(built: Built) -> None:
    held = set(zipfile.ZipFile(built.wheel).namelist())
    kept = (".py", ".js", ".css", ".c", ".safetensors", ".txt", ".typed", ".md")
    package = ROOT / "unet_tutorial"
    wanted = {
        file.relative_to(ROOT).as_posix() for file in package.rglob("*") if file.suffix in kept
    }
    wanted |= {
        f"unet_tutorial/_results/{file.relative_to(ROOT / 'book/results').as_posix()}"
        for file in (ROOT / "book/results").rglob("*.json")
    }
    assert any("networks/isbi-concat.safetensors" in name for name in wanted)
    assert any("widgets/built/live.js" in name for name in wanted)
    assert wanted <= held
    strange = {name.split("/")[0] for name in held} - {"unet_tutorial"}
    assert all(name.endswith(".dist-info") for name in strange), "a wheel is the package alone"
    assert built.wheel.stat().st_size < 8e6


def test_the_sdist_holds_the_book_its_tests_and_no_data(built: Built, checkout: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    committed = set(run(["git", "ls-files"], cwd=checkout).splitlines())
    # hatchling leaves out what only git reads.
    missing = committed - names - {".gitignore", "data/.gitignore"}
    assert not missing
    assert names - committed == {"PKG-INFO"}
    assert {name for name in names if name.startswith("data/")} == {
        f"data/{card.name}" for card in (ROOT / "data").glob("*.md")
    } | ({"data/.gitignore"} & names)
    assert built.sdist.stat().st_size < 16e6


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that has torch and ipykernel, and nothing of ours."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", folder])
    python = folder / "bin" / "python"
    extra = shlex.split(os.environ.get("PIP_ARGS", ""))  # as for make: where torch comes from
    install = [*pip_for(python), "install", "-c", ROOT / "constraints.txt", *extra]
    done = subprocess.run(
        [*install, "torch", "ipykernel"], capture_output=True, text=True, env=ENVIRONMENT
    )
    if done.returncode and not CI and "No matching distribution" in done.stderr:
        pytest.skip("packages cannot be had: no network")
    assert done.returncode == 0, done.stderr[-2000:]
    return python


class Colab(NamedTuple):
    notebook: Any
    added: dict[str, str]
    bytes: int
    before: dict[str, str]
    after: dict[str, str]
    location: Path


def installed(python: Path) -> dict[str, str]:
    """Map every package to its version, and to the moment of its installation."""
    code = (
        "import importlib.metadata as m, json, os\n"
        "print(json.dumps({d.name: f'{d.version} {os.stat(d._path).st_mtime_ns}'"
        " for d in m.distributions()}))"
    )
    found = json.loads(run([python, "-c", code]))
    return {canonicalize_name(name): version for name, version in found.items()}


@pytest.fixture(scope="session")
def colab(python: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Colab:
    """Run a chapter as Colab does: only the notebook's file, whose setup cell brings the package.

    What the cell asks of the network is answered from this machine: the repository's address by
    the checkout, packages by a folder of wheels. The data cannot be downloaded.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("colab")
    home, empty, wheels = (folder / name for name in ("home", "content", "wheels"))
    for new in (home, empty):
        new.mkdir()
    pip = pip_for(python)
    plan = folder / "plan.json"
    run([*pip, "install", "--dry-run", "--report", plan, checkout])
    added = {
        canonicalize_name(one["metadata"]["name"]): one["metadata"]["version"]
        for one in json.loads(plan.read_text(encoding="utf-8"))["install"]
    }
    pins = [f"{name}=={version}" for name, version in added.items() if name != "unet-tutorial"]
    run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, *pins])
    size = sum(file.stat().st_size for file in wheels.iterdir())
    run([*pip, "wheel", "--wheel-dir", wheels, "hatchling"])

    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "UNET_TUTORIAL_PROFILE": "smoke",
        **UNCOMPILED,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{checkout.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": read_address(ROOT).repository,
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    specs = folder / "kernels" / "python3"
    specs.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (specs / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    finder = KernelSpecManager(kernel_dirs=[str(specs.parent)], ensure_native_kernel=False)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=finder)

    before = installed(python)
    shutil.copy(ROOT / "book" / f"{CHAPTER}.ipynb", empty)
    notebook = nbformat.read(empty / f"{CHAPTER}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, km=manager, timeout=300).execute(cwd=str(empty), env=environment)
    location = run([python, "-c", "import unet_tutorial; print(unet_tutorial.__file__)"], cwd=empty)
    return Colab(notebook, added, size, before, installed(python), Path(location.strip()))


def said(cell: Any) -> str:
    """Return what a cell has printed."""
    return "".join(output.get("text", "") for output in cell.outputs)


def test_a_chapter_runs_where_only_torch_is(colab: Colab, python: Path) -> None:
    assert "unet-tutorial" not in colab.before
    cells = [cell for cell in colab.notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds
    assert colab.location.is_relative_to(python.parents[1]), "not from a checkout"
    assert "profile smoke" in said(cells[1])


def test_without_network_the_chapter_says_that_its_data_are_synthetic(colab: Colab) -> None:
    cells = [cell for cell in colab.notebook.cells if cell.cell_type == "code"]
    line = r"membranes: \d+ images .*; ISBI 2012 is not on disk and could not be downloaded"
    assert re.search(line, said(cells[1]))


def test_torch_is_left_alone(colab: Colab) -> None:
    assert "torch" not in colab.added
    kept = {name: moment for name, moment in colab.after.items() if name in colab.before}
    assert kept == colab.before, "something that was there has been replaced"


def test_the_package_alone_is_light(colab: Colab) -> None:
    assert set(colab.added) <= set(colab.after)
    assert not HEAVY & set(colab.added)
    assert not HEAVY & set(colab.after)
    assert 40 < len(colab.after) < 90
    assert colab.bytes < 200e6, "to download, beside torch"


@pytest.fixture(scope="session")
def with_tests(colab: Colab, built: Built, python: Path) -> Path:
    """The same environment with the wheel in place of what the chapter has installed."""
    pip = [*pip_for(python), "install"]
    run([*pip, "--force-reinstall", "--no-deps", built.wheel])
    tools = ["pytest", "pytest-timeout", "hypothesis", "nbformat", "PyYAML", "onnx"]
    run([*pip, "-c", ROOT / "constraints.txt", *tools])
    return python


def pytest_of(python: Path, folder: Path, *arguments: str) -> str:
    """Run pytest of that environment, in that folder, without plugins of this one."""
    left_out = ("UNET_TUTORIAL_", "PYTEST_")
    kept = {k: v for k, v in ENVIRONMENT.items() if not k.startswith(left_out)}
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts="]
    options += ["-o", "doctest_optionflags=NORMALIZE_WHITESPACE ELLIPSIS"]
    command = [python, "-m", "pytest", *options, *arguments]
    return run(command, cwd=folder, env={**kept, "HOME": str(folder), "OMP_NUM_THREADS": "1"})


def test_the_examples_hold_in_the_installed_wheel(with_tests: Path, tmp_path: Path) -> None:
    said = pytest_of(with_tests, tmp_path, "--doctest-modules", "--pyargs", "unet_tutorial")
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    assert int(passed[1]) > 200


def test_the_sdist_passes_its_tests(with_tests: Path, built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    names = ("losses", "features", "results", "address")
    said = pytest_of(with_tests, folder, *(f"tests/test_{name}.py" for name in names))
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    assert int(passed[1]) > 40


def test_the_book_has_the_chapter_that_is_tried() -> None:
    assert CHAPTER in {chapter.stem for chapter in list_chapters(ROOT)}
