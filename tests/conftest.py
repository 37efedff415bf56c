"""What several test files share: the checkout and small books to try the runner on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import yaml

from unet_tutorial.chapters import build_site

ROOT = Path(__file__).resolve().parent.parent
CI = bool(os.environ.get("CI"))

MakeBook = Callable[..., Path]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def make_book(tmp_path: Path) -> MakeBook:
    """Write a checkout with one chapter per keyword; a chapter is a list of code cells."""

    def make(**chapters: list[str]) -> Path:
        root = tmp_path / "checkout"
        (root / "book").mkdir(parents=True, exist_ok=True)
        (root / "unet_tutorial").mkdir(exist_ok=True)
        (root / "unet_tutorial" / "unet.py").write_text("DEPTH = 4\n")
        (root / "constraints.txt").write_text("torch==2.13.0\n")
        (root / "_toc.yml").write_text(
            "format: jb-book\nroot: index\nchapters:\n"
            + "".join(f"  - file: {name}\n" for name in chapters)
        )
        for name, cells in chapters.items():
            notebook = nbformat.v4.new_notebook()
            parameters = nbformat.v4.new_code_cell(
                'profile = "auto"\ndataset = "auto"\nseed = 0', metadata={"tags": ["parameters"]}
            )
            notebook.cells = [parameters, *(nbformat.v4.new_code_cell(cell) for cell in cells)]
            nbformat.write(notebook, root / "book" / f"{name}.ipynb")
        return root

    return make


FORMULAS = """# Formulas

Softmax is $p_k = e^{a_k} / \\sum_j e^{a_j}$ at every pixel.

$$
E = \\sum_{x \\in \\Omega} w(x) \\log p_{\\ell(x)}(x)
$$
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the stored outputs, and one more page that holds formulas."""
    copy = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "book", copy / "book", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "_config.yml", copy)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"][-1]["chapters"].append({"file": "formulas"})
    (copy / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (copy / "book" / "formulas.md").write_text(FORMULAS, encoding="utf-8")
    return build_site(copy).parent
