"""The runner of the chapters, on small books; then the chapters themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import nbformat
import pytest
from conftest import ROOT, MakeBook

from unet_tutorial import chapters
from unet_tutorial.chapters import (
    MAX_BYTES,
    ChapterError,
    build_site,
    clean,
    list_chapters,
    refresh_chapters,
    run_chapters,
)

# ---- the runner


def outputs(notebook: Path) -> str:
    """Return all text that a notebook has printed."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(
        output.get("text", "")
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


def test_chapters_are_listed_in_the_order_of_the_contents(make_book: MakeBook) -> None:
    root = make_book(b=["1"], a=["2"])
    assert [chapter.name for chapter in list_chapters(root)] == ["b.ipynb", "a.ipynb"]


def test_pages_without_code_are_no_chapters_but_missing_files_are_an_error(
    make_book: MakeBook,
) -> None:
    root = make_book(a=["1"], b=["2"])
    (root / "book" / "a.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match=r"_toc\.yml.*a"):
        list_chapters(root)
    (root / "book" / "a.md").write_text("# A page\n")
    assert [chapter.name for chapter in list_chapters(root)] == ["b.ipynb"]


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        list_chapters(tmp_path)


def test_parameters_reach_the_chapter_only_when_given(make_book: MakeBook) -> None:
    root = make_book(a=["print(profile, dataset, seed)"])
    (plain,) = run_chapters(root, root / "plain")
    assert outputs(plain) == "auto auto 0\n"
    (changed,) = run_chapters(root, root / "changed", {"profile": "smoke", "seed": 3})
    assert outputs(changed) == "smoke auto 3\n"


def test_a_chapter_runs_again_only_when_an_ingredient_changed(
    make_book: MakeBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_book(a=["print(1)"])
    ran: list[str] = []

    def execute(notebook: Path, target: Path, parameters: Any) -> None:
        ran.append(notebook.name)
        target.write_text(notebook.read_text())

    monkeypatch.setattr(chapters, "_execute", execute)

    def runs(**parameters: str) -> bool:
        before = len(ran)
        run_chapters(root, root / "_build", parameters)
        return len(ran) > before

    assert runs()
    assert not runs()
    with (root / "unet_tutorial" / "unet.py").open("a") as package:
        package.write("DEPTH = 3\n")
    assert runs(), "a line of the package changed"
    (root / "constraints.txt").write_text("torch==2.12.0\n")
    assert runs(), "a pinned version changed"
    (root / "book" / "results").mkdir()
    (root / "book" / "results" / "new.json").write_text("{}")
    assert runs(), "a stored result that a chapter may read changed"
    monkeypatch.setenv("UNET_TUTORIAL_PROFILE", "smoke")
    assert runs(), "the profile in the environment changed"
    assert runs(seed="1"), "a parameter changed"
    assert not runs(seed="1")
    notebook = nbformat.read(root / "book" / "a.ipynb", as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    nbformat.write(notebook, root / "book" / "a.ipynb")
    assert not runs(seed="1"), "only a stored output changed"
    notebook.cells[1].source = "print(2)"
    nbformat.write(notebook, root / "book" / "a.ipynb")
    assert runs(seed="1"), "a cell changed"


def test_arrived_data_runs_the_chapters_again_but_a_download_of_their_own_does_not(
    make_book: MakeBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("UNET_TUTORIAL_DATA", str(data))
    download = f"import pathlib; pathlib.Path({str(data)!r}).mkdir(exist_ok=True)"
    root = make_book(a=[f"{download}; (pathlib.Path({str(data)!r}) / 'own').touch()", "1"])
    (chapter,) = run_chapters(root, root / "_build")
    first = chapter.stat().st_mtime_ns
    run_chapters(root, root / "_build")
    assert chapter.stat().st_mtime_ns == first
    (data / "volume.tif").write_bytes(b"image")
    run_chapters(root, root / "_build")
    assert chapter.stat().st_mtime_ns > first


def test_a_failing_cell_is_named_and_the_good_result_stays(make_book: MakeBook) -> None:
    root = make_book(a=["print('fine')", "1 + 1"])
    (good,) = run_chapters(root, root / "_build")
    before = good.read_bytes()
    root = make_book(a=["print('fine')", "width = 0\n1 / width"])
    with pytest.raises(ChapterError) as caught:
        run_chapters(root, root / "_build")
    message = str(caught.value)
    assert "a.ipynb" in message
    assert "cell [3]" in message
    assert "width = 0" in message
    assert "ZeroDivisionError: division by zero" in message
    assert good.read_bytes() == before
    kept = root / "_build" / "a.failed.ipynb"
    assert str(kept) in message
    assert "fine" in outputs(kept)
    root = make_book(a=["print('mended')"])
    run_chapters(root, root / "_build")
    assert outputs(good) == "mended\n"
    assert not kept.exists(), "a mended chapter needs no post-mortem"


def test_a_kernel_that_dies_is_an_error_with_a_cause(make_book: MakeBook) -> None:
    root = make_book(a=["import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
    with pytest.raises(ChapterError, match=r"a\.ipynb.*died.*memory"):
        run_chapters(root, root / "_build")
    assert list((root / "_build").glob("*.ipynb")) == []


def test_an_interrupted_run_leaves_nothing_half_written(make_book: MakeBook) -> None:
    root = make_book(a=["print('started', flush=True)", "import time; time.sleep(60)"])
    run = [sys.executable, "-m", "unet_tutorial.cli", "chapters", "run", "--root", str(root)]
    process = subprocess.Popen(
        run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    half = root / "_build" / "executed" / "a.part.ipynb"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (half.exists() and "started" in half.read_text()):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert list((root / "_build" / "executed").iterdir()) == []


def test_refresh_renews_outputs_and_strips_what_belongs_to_one_run(make_book: MakeBook) -> None:
    root = make_book(a=["import os; print(os.getcwd())", "import sys; print(sys.prefix)"])
    (stored,) = refresh_chapters(root)
    text = stored.read_text()
    assert str(root) not in text
    assert sys.prefix not in text
    assert outputs(stored) == "./book\nenv\n"
    assert "papermill" not in text
    assert "iopub" not in text
    notebook = nbformat.read(stored, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].metadata.tags == ["parameters"]
    assert not list(root.rglob("*.part*"))


def test_refresh_stores_all_or_nothing(make_book: MakeBook) -> None:
    root = make_book(a=["print(1)"], b=[f"print('x' * {MAX_BYTES})"])
    before = {chapter: chapter.read_bytes() for chapter in list_chapters(root)}
    with pytest.raises(ChapterError, match=r"b\.ipynb would be .* fewer or smaller pictures"):
        refresh_chapters(root)
    assert {chapter: chapter.read_bytes() for chapter in list_chapters(root)} == before


def test_one_chapter_can_be_renewed_alone(make_book: MakeBook) -> None:
    root = make_book(a=["print(1)"], b=["print(2)"])
    (a, b) = list_chapters(root)
    before = a.read_bytes()
    assert refresh_chapters(root, ["b"]) == [b]
    assert a.read_bytes() == before
    assert outputs(b) == "2\n"
    with pytest.raises(ChapterError, match="no chapter c; there are a, b"):
        refresh_chapters(root, ["b", "c"])


def test_a_run_writes_down_where_and_how_long_it_ran(
    make_book: MakeBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "def setup(*options): print('profile', *options)\nsetup(profile, 'set', seed)"
    root = make_book(a=[said], b=["print(2)"])
    refresh_chapters(root)
    file = root / "book" / "results" / "runs.json"
    runs = json.loads(file.read_text())
    assert list(runs["chapters"]) == ["a", "b"]
    assert runs["chapters"]["a"]["setting"] == ["profile auto set 0"]
    assert 0 < runs["chapters"]["b"]["seconds"] < 100
    assert runs["machine"]["cores"] >= 1
    assert runs["versions"]["torch"]
    shutil.rmtree(root / "_build")  # as in a fresh clone
    refresh_chapters(root, ["b"])
    assert set(json.loads(file.read_text())["chapters"]) == {"a", "b"}
    monkeypatch.setattr("unet_tutorial.devices.describe_machine", lambda: {"cores": 64})
    refresh_chapters(root, ["b"])
    assert set(json.loads(file.read_text())["chapters"]) == {"b"}, "another machine's seconds"


def test_what_a_run_says_about_itself_runs_nothing_again(make_book: MakeBook) -> None:
    root = make_book(a=["print(1)"])
    (chapter,) = run_chapters(root, root / "_build")
    first = chapter.stat().st_mtime_ns
    results = root / "book" / "results"
    results.mkdir()
    (results / "runs.json").write_text("{}")
    run_chapters(root, root / "_build")
    assert chapter.stat().st_mtime_ns == first


def test_cleaning_drops_widgets_and_injected_parameters() -> None:
    notebook = nbformat.v4.new_notebook(metadata={"widgets": {"state": 1}, "papermill": {}})
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"}
    notebook.cells = [
        nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]}),
        nbformat.v4.new_code_cell(
            "bar",
            metadata={"tags": ["mine"], "execution": {}, "mystnb": {"image": {"alt": "A"}}},
            outputs=[nbformat.v4.new_output("display_data", widget)],
        ),
    ]
    cleaned = clean(notebook, Path("/checkout"))
    (cell,) = cleaned.cells
    assert cell.metadata == {"tags": ["mine"], "mystnb": {"image": {"alt": "A"}}}
    assert cell.outputs[0].data == {"text/plain": "bar"}
    assert set(cleaned.metadata) == {"kernelspec", "language_info"}


def test_cleaning_joins_what_was_printed_in_pieces() -> None:
    pieces = [("stdout", "a"), ("stdout", "b\n"), ("stderr", "c"), ("stdout", "d")]
    printed = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=printed)])
    outputs = clean(notebook, Path("/checkout")).cells[0].outputs
    assert [(o.name, o.text) for o in outputs] == [
        ("stdout", "ab\n"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


def make_site(root: Path, page: str) -> None:
    """Turn a small book into one that Jupyter Book accepts."""
    (root / "_config.yml").write_text("title: T\nexecute:\n  execute_notebooks: 'off'\n")
    (root / "book" / "index.md").write_text(page)
    (root / "_toc.yml").write_text("format: jb-book\nroot: index\n")


def test_a_site_is_built_anew_where_the_package_has_changed(
    make_book: MakeBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_book()
    make_site(root, "# First\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "widgets.css").write_text("a {}")
    monkeypatch.setattr(chapters, "PACKAGE", package)
    build_site(root)
    (package / "widgets.css").write_text("b {}")
    monkeypatch.setattr(
        chapters.subprocess, "run", Mock(side_effect=InterruptedError("built anew"))
    )
    with pytest.raises(InterruptedError):
        build_site(root)
    (package / "widgets.css").write_text("a {}")
    build_site(root)  # as it was: nothing to build


def test_a_site_that_does_not_build_leaves_the_good_one(make_book: MakeBook) -> None:
    root = make_book()
    make_site(root, "# First\n")
    index = build_site(root)
    assert "First" in index.read_text()
    built = index.stat().st_mtime_ns
    assert build_site(root).stat().st_mtime_ns == built, "nothing changed, nothing was built"
    make_site(root, "# Second\n\n[nowhere](gone.md)\n")
    with pytest.raises(ChapterError, match=r"gone\.md"):
        build_site(root)
    assert "First" in index.read_text()
    make_site(root, "# Third\n")
    assert "Third" in build_site(root).read_text()


# ---- the chapters of the book

BOOK = list_chapters(ROOT)
by_name = pytest.mark.parametrize("chapter", BOOK, ids=lambda chapter: chapter.stem)


def code(chapter: Path) -> list[Any]:
    """Return the code cells of a chapter."""
    cells = nbformat.read(chapter, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def is_fact(cell: Any) -> bool:
    """Say whether nbval compares what a cell shows."""
    tags = cell.metadata.get("tags", [])
    return "nbval-ignore-output" not in tags and any(
        output.output_type == "stream" or "text/plain" in output.get("data", {})
        for output in cell.outputs
    )


def test_the_book_has_a_chapter() -> None:
    assert BOOK


@by_name
def test_first_come_the_parameters_then_the_setup_that_all_share(chapter: Path) -> None:
    parameters, setup, *_ = code(chapter)
    assert parameters.metadata.tags == ["parameters"]
    values: dict[str, Any] = {}
    exec(parameters.source, values)
    del values["__builtins__"]
    assert values == {"profile": "auto", "dataset": "auto", "seed": 0}
    assert setup.source == code(BOOK[0])[1].source
    others = [cell for cell in code(chapter) if "parameters" in cell.metadata.get("tags", [])]
    assert len(others) == 1


@by_name
def test_every_cell_has_run_in_order_and_without_error(chapter: Path) -> None:
    cells = code(chapter)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert "error" not in kinds


@by_name
def test_no_output_is_a_warning(chapter: Path) -> None:
    for cell in code(chapter):
        said = "".join(o.text for o in cell.outputs if o.get("name") == "stderr")
        assert "Warning" not in said, cell.source


@by_name
def test_stored_chapter_is_small_and_belongs_to_no_machine(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_BYTES
    content = json.loads(text)
    assert "widgets" not in content["metadata"]
    assert "papermill" not in content["metadata"]
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            words = json.dumps({k: v for k, v in output.items() if k != "data"})
            words += json.dumps(
                {k: v for k, v in output.get("data", {}).items() if k.startswith("text/")}
            )
            assert not re.search(r"(?<![\w.~])/(home|root|work|tmp|Users|usr|opt)/", words), words


@by_name
def test_six_facts_or_more_are_compared(chapter: Path) -> None:
    assert sum(map(is_fact, code(chapter))) >= 6


@by_name
def test_cells_fit_on_a_screen(chapter: Path) -> None:
    for cell in code(chapter):
        assert len(cell.source.splitlines()) <= 15, cell.source


@by_name
def test_no_compared_cell_hides_its_value_with_a_semicolon(chapter: Path) -> None:
    # nbval keeps no history, without which IPython shows the value all the same: assign it.
    for cell in code(chapter):
        if "nbval-ignore-output" not in cell.metadata.get("tags", []):
            assert not cell.source.rstrip().endswith(";"), cell.source


@by_name
def test_every_figure_has_words_for_it(chapter: Path) -> None:
    for cell in code(chapter):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if any(kind.startswith("image/") for kind in kinds):
            words = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(words) > 40, cell.source


@by_name
def test_no_placeholder_is_left_in_the_text(chapter: Path) -> None:
    for cell in nbformat.read(chapter, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"^[A-Z]+_[A-Z]+$|\bTODO\b", cell.source, re.MULTILINE)


def test_every_fact_changed_by_hand_fails_and_is_named(tmp_path: Path) -> None:
    # What the cells say is taken from the store, so that nothing has to be trained: that they say
    # it is what `pytest --nbval book` shows.
    wanted = set()
    for chapter in BOOK:
        notebook = nbformat.read(chapter, as_version=4)
        notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, cell in enumerate(notebook.cells):
            said = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
            stored, digit = said, re.search(r"\d", said)
            if digit and is_fact(cell):
                other = str((int(digit[0]) + 1) % 10)
                stored = said[: digit.start()] + other + said[digit.end() :]
                wanted.add(f"{chapter.name}::Cell {number}")
            # A comment may tell nbval not to compare.
            comments = [line for line in cell.source.splitlines() if line.lstrip()[:1] == "#"]
            cell.source = "\n".join([*comments, f"print({said!r}, end='')"])
            output = nbformat.v4.new_output("stream", name="stdout", text=stored)
            cell.outputs = [output] if said else []
        nbformat.write(notebook, tmp_path / chapter.name)
    assert len({name.split("::")[0] for name in wanted}) == len(BOOK)

    options = ["-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "-q", "-c", os.devnull]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(chapter.name for chapter in BOOK)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout
    assert set(re.findall(r"^FAILED ([\w.-]+::Cell \d+)", done.stdout, re.MULTILINE)) == wanted
