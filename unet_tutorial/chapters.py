"""Running the chapters, renewing their stored outputs, building the site.

Needs the extra ``[book]``. The Makefile calls these functions through ``unet-tutorial chapters``.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from unet_tutorial._files import in_checkout, write_text_whole

MAX_BYTES = 1_000_000
PACKAGE = Path(__file__).parent
RUNS = "runs.json"  # how long each chapter took, and where; read by the page "How it was run"
_VERSIONS = ("torch", "numpy", "scipy", "scikit-image", "matplotlib", "jupyter-book", "papermill")
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class ChapterError(RuntimeError):
    """A chapter that did not run to its end, or must not be stored."""


def list_chapters(root: Path) -> list[Path]:
    """List the notebooks of the table of contents, in reading order.

    Parameters
    ----------
    root : Path
        The checkout, with ``_toc.yml`` and ``book/``.

    Returns
    -------
    list of Path

    Raises
    ------
    FileNotFoundError
        If the folder is no checkout of the book, or lacks a page of its table of contents.
    """
    import yaml

    toc = in_checkout(root, "_toc.yml")
    content = yaml.safe_load(toc.read_text(encoding="utf-8"))
    entries = list(content.get("chapters", []))
    for part in content.get("parts", []):
        entries += part.get("chapters", [])
    notebooks = []
    for entry in entries:
        page = root / "book" / entry["file"]
        notebook = page.with_name(f"{page.name}.ipynb")
        if notebook.exists():
            notebooks.append(notebook)
        elif not page.with_name(f"{page.name}.md").exists():
            raise FileNotFoundError(
                f"_toc.yml lists {entry['file']}, but there is neither {notebook.name} nor "
                f"{page.name}.md in {page.parent}"
            )
    return notebooks


def fingerprint(notebook: Path, root: Path, parameters: Mapping[str, Any]) -> str:
    """Sum up all that the outputs of a chapter depend on.

    Parameters
    ----------
    notebook : Path
        The chapter; its cells count, its stored outputs do not.
    root : Path
        The checkout: package, pinned versions and stored results count. So do the versions of
        Python and torch and the ``UNET_TUTORIAL_`` environment variables.
    parameters : mapping
        What papermill will set.

    Returns
    -------
    str
        A hexadecimal SHA-256.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    digest = hashlib.sha256()
    digest.update(json.dumps([[c["cell_type"], "".join(c["source"])] for c in cells]).encode())
    digest.update(json.dumps(dict(parameters), sort_keys=True).encode())
    for name in ("UNET_TUTORIAL_DATA", "UNET_TUTORIAL_PROFILE"):
        digest.update(f"{name}={os.environ.get(name, '')}".encode())
    digest.update(f"{sys.version} {metadata.version('torch')}".encode())
    files = [*sorted((root / "unet_tutorial").rglob("*.py")), root / "constraints.txt"]
    files += sorted((root / "book" / "results").rglob("*.json"))
    for file in files:
        if file.name == RUNS:
            continue  # what a run writes about itself
        if file.exists():
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def run_chapters(
    root: Path,
    into: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    only: Sequence[str] = (),
    force: bool = False,
) -> list[Path]:
    """Execute all chapters with papermill; skip those whose ingredients are unchanged.

    Parameters
    ----------
    root : Path
        The checkout.
    into : Path
        Folder for the executed notebooks.
    parameters : mapping, optional
        Replace the chapters' own: ``profile``, ``dataset``, ``seed``.
    only : sequence of str
        Names of the chapters to run; all, when left out.
    force : bool
        Run unchanged chapters as well.

    Returns
    -------
    list of Path
        The executed notebooks, those that were skipped included.

    Raises
    ------
    ChapterError
        If a cell fails; the message names chapter, cell and error. What ran before stays.
    """
    parameters = dict(parameters or {})
    into.mkdir(parents=True, exist_ok=True)
    chapters = _choose(list_chapters(root), only)
    executed = []
    for number, notebook in enumerate(chapters, start=1):
        target = into / notebook.name
        stamp = into / f"{notebook.stem}.fingerprint"
        wanted = fingerprint(notebook, root, parameters)
        executed.append(target)
        title = f"[{number}/{len(chapters)}] {notebook.stem}"
        failed = target.with_name(f"{target.stem}.failed.ipynb")
        done = stamp.read_text() if target.exists() and stamp.exists() else ""
        if not force and done == f"{wanted} {_data_on_disk(root)}":
            print(f"{title}: unchanged, not run again", flush=True)
            continue
        print(f"{title}: running", flush=True)
        started = time.perf_counter()
        half = target.with_name(f"{target.stem}.part.ipynb")
        try:
            _execute(notebook, half, parameters)
        except ChapterError as error:
            if half.exists():
                os.replace(half, failed)
                raise ChapterError(f"{error}\n(everything up to there: {failed})") from None
            raise
        finally:
            if sys.exc_info()[0]:
                half.unlink(missing_ok=True)
        stamp.unlink(missing_ok=True)  # it belongs to the result that goes now
        os.replace(half, target)
        write_text_whole(
            stamp, f"{wanted} {_data_on_disk(root)}"
        )  # a chapter may have downloaded some
        failed.unlink(missing_ok=True)
        seconds = time.perf_counter() - started
        _note_run(target, seconds)
        print(f"{title}: done in {seconds:.0f} s", flush=True)
    return executed


def refresh_chapters(root: Path, only: Sequence[str] = ()) -> list[Path]:
    """Run chapters with their own parameters and renew the outputs stored in ``book/``.

    Parameters
    ----------
    root : Path
        The checkout.
    only : sequence of str
        Names of the chapters to renew, such as ``"2-bottleneck"``; all, when left out.

    Returns
    -------
    list of Path
        The renewed notebooks.

    Raises
    ------
    ChapterError
        If there is no chapter of that name, or a chapter fails or would be larger than 1 MB; then
        no chapter is changed.
    """
    import nbformat

    chapters = _choose(list_chapters(root), only)
    runs, into = root / "book" / "results" / RUNS, root / "_build" / "refreshed"
    if only and runs.exists():  # what is known of the other chapters stays
        into.mkdir(parents=True, exist_ok=True)
        write_text_whole(into / RUNS, runs.read_text(encoding="utf-8"))
    executed = run_chapters(root, into, only=only, force=True)
    texts = []
    for notebook in executed:
        content = clean(nbformat.read(notebook, as_version=4), root)
        texts.append(nbformat.writes(content).rstrip() + "\n")
        size = len(texts[-1].encode())
        if size >= MAX_BYTES:
            raise ChapterError(
                f"{notebook.name} would be {size:,} bytes, {MAX_BYTES:,} are allowed: show "
                "fewer or smaller pictures"
            )
    runs.parent.mkdir(exist_ok=True)
    write_text_whole(runs, (into / RUNS).read_text(encoding="utf-8"))
    for target, text in zip(chapters, texts, strict=True):
        write_text_whole(target, text)
        print(f"{target.name}: {len(text.encode()):,} bytes stored", flush=True)
    return chapters


def clean(notebook: Any, root: Path) -> Any:
    """Remove from an executed notebook what belongs to one machine and one run.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Executed; changed in place.
    root : Path
        The checkout, whose path must not show.

    Returns
    -------
    nbformat.NotebookNode
        The same notebook: no timings, widget state or injected parameters, no paths.
    """
    notebook.metadata = {"kernelspec": dict(_KERNEL), "language_info": {"name": "python"}}
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    hidden = {str(folder): "data" for folder in _data_folders(root)}
    hidden |= {sys.prefix: "env", str(root.resolve()): ".", str(Path.home()): "~"}
    for cell in notebook.cells:
        keep = ("tags", "mystnb")
        cell.metadata = {k: cell.metadata[k] for k in keep if cell.metadata.get(k)}
        if "outputs" in cell:
            cell.outputs = _merge_streams(cell.outputs)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _hide(output.text, hidden)
            for kind, value in list(output.get("data", {}).items()):
                if "widget" in kind:
                    del output.data[kind]
                elif isinstance(value, str) and kind.startswith(("text/", "image/svg")):
                    output.data[kind] = _hide(value, hidden)
    return notebook


def build_site(root: Path, executed: Path | None = None) -> Path:
    """Build the static site with Jupyter Book.

    Parameters
    ----------
    root : Path
        The checkout.
    executed : Path, optional
        Folder of executed chapters to show instead of the outputs that are stored in ``book/``.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    ChapterError
        If Jupyter Book fails or warns; the message ends with what it said.
    """
    instead = {chapter.name: executed / chapter.name for chapter in list_chapters(root) if executed}
    missing = [file.name for file in instead.values() if not file.exists()]
    if missing:
        raise ChapterError(
            f"there is no {', '.join(missing)} in {executed}: run the chapters first"
        )
    if executed:
        instead[f"results/{RUNS}"] = executed / RUNS
    work = root / "_build" / "site"
    source, built, site = work / "source", work / "_build" / "html", root / "_build" / "html"
    _mirror(root / "book", source, instead)
    stamp = work / "fingerprint"
    settings = [root / name for name in ("_config.yml", "_toc.yml", "constraints.txt")]
    # The package, too: pages show its docstrings, and its widgets come with them.
    wanted = _tree_fingerprint([source, *settings, PACKAGE])
    if (site / "index.html").exists() and stamp.exists() and stamp.read_text() == wanted:
        print("the pages: unchanged", flush=True)
        return site / "index.html"
    print("the pages: building", flush=True)
    start = "from jupyter_book.cli.main import main; main()"  # this environment's, whatever PATH
    command = [sys.executable, "-c", start, "build", str(source)]
    command += ["--config", str(root / "_config.yml"), "--toc", str(root / "_toc.yml")]
    command += ["--path-output", str(work), "-W", "--keep-going"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode or not (built / "index.html").exists():
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).strip().splitlines()
        raise ChapterError("Jupyter Book did not build the site:\n" + "\n".join(said[-40:]))
    stamp.unlink(missing_ok=True)
    _replace_folder(built, site)
    write_text_whole(stamp, wanted)
    return site / "index.html"


def _choose(chapters: list[Path], only: Sequence[str]) -> list[Path]:
    known = [chapter.stem for chapter in chapters]
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise ChapterError(f"no chapter {', '.join(unknown)}; there are {', '.join(known)}")
    return [chapter for chapter in chapters if not only or chapter.stem in only]


def _note_run(notebook: Path, seconds: float) -> None:
    """Write beside an executed notebook how it was run, in the words of its own setup cell."""
    from unet_tutorial.devices import describe_machine

    file = notebook.with_name(RUNS)
    machine, versions = describe_machine(), {name: metadata.version(name) for name in _VERSIONS}
    chapters: dict[str, Any] = {}
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if (before["machine"], before["versions"]) == (machine, versions):
            chapters = before["chapters"]  # of chapters that are not run this time
    said = ""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and "setup(profile" in "".join(cell["source"]):
            said = "".join("".join(output.get("text", "")) for output in cell["outputs"])
    chapters[notebook.stem] = {"seconds": round(seconds, 1), "setting": said.splitlines()}
    content = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "versions": versions,
        "chapters": dict(sorted(chapters.items())),
    }
    write_text_whole(file, json.dumps(content, indent=1) + "\n")


def _execute(notebook: Path, target: Path, parameters: Mapping[str, Any]) -> None:
    """Run one notebook; after a failed cell the target holds everything up to there."""
    try:
        import papermill
        from nbclient.exceptions import DeadKernelError
        from papermill.exceptions import PapermillExecutionError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "papermill runs the chapters: install the extra with pip install 'unet-tutorial[book]'"
        ) from error

    own = os.environ.get("UNET_TUTORIAL_PROGRESS")
    os.environ["UNET_TUTORIAL_PROGRESS"] = ""  # a page shows nobody's own exercises
    try:
        papermill.execute_notebook(
            str(notebook),
            str(target),
            parameters=dict(parameters),
            kernel_name="python3",
            language="python",
            cwd=str(notebook.parent),
            progress_bar=True,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no notes between the lines
        )
    except PapermillExecutionError as error:
        first = "\n".join(f"    {line}" for line in error.source.strip().splitlines()[:6])
        raise ChapterError(
            f"chapter {notebook.name} stopped in cell [{error.exec_count}]:\n{first}\n"
            f"{error.ename}: {error.evalue}"
        ) from None
    except DeadKernelError:
        target.unlink(missing_ok=True)
        raise ChapterError(
            f"chapter {notebook.name} stopped: its Python died, most often for want of memory; "
            "close other programs, or try a smaller profile"
        ) from None
    finally:
        if own is None:
            del os.environ["UNET_TUTORIAL_PROGRESS"]
        else:
            os.environ["UNET_TUTORIAL_PROGRESS"] = own


def _data_on_disk(root: Path) -> str:
    """Sum up names and sizes: whether data came or went, without reading it all."""
    digest = hashlib.sha256()
    for folder in _data_folders(root):
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            digest.update(f"{file} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _data_folders(root: Path) -> list[Path]:
    """List where data may lie: the folder that the environment names, and the checkout's own."""
    named = os.environ.get("UNET_TUTORIAL_DATA")
    folders = [Path(named).expanduser().resolve()] if named else []
    return [*folders, root.resolve() / "data"]


def _hide(text: str, hidden: Mapping[str, str]) -> str:
    text = re.sub(r"/[\w./-]{1,80}/ipykernel_\d+/\d+\.py", "cell", text)  # as warnings name a cell
    for path, short in hidden.items():
        if len(path) > 1:  # a home of "/" would eat every slash
            text = text.replace(path, short)
    return text


def _merge_streams(outputs: list[Any]) -> list[Any]:
    """Join what was printed in pieces: where a piece ends is an accident of the run."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _mirror(source: Path, target: Path, instead: Mapping[str, Path]) -> None:
    """Make a folder equal to another, but for some files that are taken from elsewhere.

    Unchanged files keep their dates, so that Sphinx renews only the pages that changed.
    """
    wanted = {
        file.relative_to(source)
        for file in source.rglob("*")
        if file.is_file() and not {".ipynb_checkpoints", "__pycache__"} & set(file.parts)
    }
    for file in list(target.rglob("*")):
        if file.is_file() and file.relative_to(target) not in wanted:
            file.unlink()
    for name in sorted(wanted):
        _copy_if_changed(instead.get(str(name), source / name), target / name)


def _copy_if_changed(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or source.read_bytes() != target.read_bytes():
        shutil.copyfile(source, target)


def _replace_folder(new: Path, target: Path) -> None:
    """Put a copy of a folder in the place of another; a reader sees the old or the new one."""
    half, old = (target.with_name(f"{target.name}.{name}") for name in ("part", "old"))
    for left_over in (half, old):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(new, half)
    if target.exists():
        os.replace(target, old)
    os.replace(half, target)
    shutil.rmtree(old, ignore_errors=True)


def _tree_fingerprint(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(path.parent)
                digest.update(f"{name}\n".encode() + file.read_bytes())
    return digest.hexdigest()
