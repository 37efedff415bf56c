"""The command line: ``unet-tutorial``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unet_tutorial import __version__

if TYPE_CHECKING:
    from unet_tutorial._own_images import Folders

app = typer.Typer(
    help="Inside U-Net: the book's tools.", no_args_is_help=True, pretty_exceptions_enable=False
)
chapters_app = typer.Typer(help="Run, renew and build the chapters.", no_args_is_help=True)
app.add_typer(chapters_app, name="chapters")
results_app = typer.Typer(help="Measured results, and how to measure them.", no_args_is_help=True)
app.add_typer(results_app, name="results")
data_app = typer.Typer(help="Look after images of your own.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Root = Annotated[Path, typer.Option(help="Root of a checkout of the book.")]


@contextmanager
def _errors(first_to_say: Callable[[str], bool] = lambda said: True) -> Iterator[None]:
    """Turn the package's own errors into one message and exit code 1.

    `first_to_say` tells whether no other process has said the same.
    """
    from unet_tutorial.chapters import ChapterError

    try:
        yield
    except (ChapterError, ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        # What a keyword is in Python is an option here.
        said = re.sub(r"\b(mask_values|validation|to)=(['\"]?)(\w+)\2", _as_option, str(error))
        if first_to_say(said):
            typer.secho(f"error: {said}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


def _as_option(keyword: re.Match[str]) -> str:
    return f"--{keyword[1].replace('_', '-')} {keyword[3]}"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Inside U-Net: the book's tools."""


@results_app.command("list")
def list_results(root: Root = Path()) -> None:
    """List what was measured, when, where, and the command that measures it anew.

    Example: unet-tutorial results list
    """
    from unet_tutorial.results import list_scripts

    with _errors():
        for script in list_scripts(root.resolve()):
            typer.echo(f"{script.name}: {script.does}")
            typer.echo(f"    {script.command}")
            typer.echo(f"    {script.measured or 'not measured yet'}")


@results_app.command("tables")
def tables_command(root: Root = Path()) -> None:
    """Carry measured numbers from book/results into the tables of README.md.

    Example: unet-tutorial results tables
    """
    from unet_tutorial._tables import carry_tables

    with _errors():
        changed = carry_tables(root.resolve())
        typer.echo("README.md: changed" if changed else "nothing to change")


@chapters_app.command("list")
def list_command(root: Root = Path()) -> None:
    """List the chapters in reading order."""
    from unet_tutorial.chapters import list_chapters

    with _errors():
        for chapter in list_chapters(root.resolve()):
            typer.echo(chapter.name)


@chapters_app.command()
def run(
    root: Root = Path(),
    into: Annotated[Path, typer.Option(help="Folder for the executed notebooks.")] = Path(
        "_build/executed"
    ),
    profile: Annotated[str, typer.Option(help="cpu, gpu, small or smoke; by default auto.")] = "",
    dataset: Annotated[str, typer.Option(help="isbi2012 or membranes; by default auto.")] = "",
    seed: Annotated[str, typer.Option(help="By default 0.")] = "",
    force: Annotated[bool, typer.Option(help="Run unchanged chapters as well.")] = False,
) -> None:
    """Run all chapters that changed.

    Example: unet-tutorial chapters run --profile smoke
    """
    from unet_tutorial.chapters import run_chapters

    parameters: dict[str, str | int] = {}
    if profile:
        parameters["profile"] = profile
    if dataset:
        parameters["dataset"] = dataset
    with _errors():
        if seed:
            if not seed.lstrip("-").isdigit():
                raise ValueError(f"seed must be a whole number, got {seed!r}")
            parameters["seed"] = int(seed)
        run_chapters(root.resolve(), root.resolve() / into, parameters, force=force)


@chapters_app.command()
def refresh(
    chapters: Annotated[list[str] | None, typer.Argument(help="By default all.")] = None,
    root: Root = Path(),
) -> None:
    """Run chapters and renew the outputs that are stored in book/.

    Example: unet-tutorial chapters refresh 2-bottleneck
    """
    from unet_tutorial.chapters import refresh_chapters

    with _errors():
        refresh_chapters(root.resolve(), chapters or ())


@chapters_app.command()
def site(
    root: Root = Path(),
    executed: Annotated[
        Path | None, typer.Option(help="Show these executed notebooks, not the stored outputs.")
    ] = None,
) -> None:
    """Build the static site and say where to open it."""
    from unet_tutorial.chapters import build_site

    with _errors():
        start = root.resolve()
        index = build_site(start, start / executed if executed else None)
        typer.echo(f"\nThe book is built. Open it:\n  {index.as_uri()}")
        folder = index.parent.relative_to(start)
        typer.echo(f"or serve it:\n  python3 -m http.server --directory {folder}")


@chapters_app.command()
def address(
    url: Annotated[
        str,
        typer.Argument(help="https://github.com/OWNER/NAME; by default that of _config.yml."),
    ] = "",
    site: Annotated[
        str, typer.Option(help="Address of the pages; by default GitHub's for the repository.")
    ] = "",
    root: Root = Path(),
) -> None:
    """Carry the repository's address from _config.yml into links, badges and install lines.

    Example: unet-tutorial chapters address https://github.com/OWNER/NAME
    """
    from unet_tutorial._address import carry_address, read_address

    with _errors():
        start = root.resolve()
        changed = carry_address(start, url, site)
        for file in changed:
            typer.echo(f"{file.relative_to(start)}: changed")
        there = read_address(start)
        typer.echo(f"repository {there.repository}, pages {there.site}")
        if not changed:
            typer.echo("nothing to change")


@chapters_app.command()
def numbers(
    root: Root = Path(),
    missing: Annotated[
        bool, typer.Option("--missing", help="Show only the numbers without a source.")
    ] = False,
) -> None:
    """List every number of the book's prose with its source; fail if one has none.

    Example: unet-tutorial chapters numbers --missing
    """
    from unet_tutorial.prose import report, trace_numbers

    with _errors():
        claims, problems = trace_numbers(root.resolve())
        typer.echo(report(claims, problems, missing=missing))
        if problems or not all(claim.source for claim in claims):
            raise typer.Exit(1)


# --- your own images ------------------------------------------------------------------------------

Data = Annotated[
    Path | None,
    typer.Argument(help="Folder with images/ and masks/, or with train/ and val/ that have them."),
]
Images = Annotated[Path | None, typer.Option(help="Folder (or TIFF stack) of the images.")]
Masks = Annotated[Path | None, typer.Option(help="Folder (or TIFF stack) of their masks.")]
HeldOut = Annotated[
    str,
    typer.Option(
        metavar="DIR|FRACTION",
        help="Folder with two subfolders named like the others, or the part to hold out; by "
        "default 0.2, or the val/ of DATA.",
    ),
]
HeldOutImages = Annotated[Path | None, typer.Option(help="Held-out images, named outright.")]
HeldOutMasks = Annotated[Path | None, typer.Option(help="Held-out masks, named outright.")]
MaskMeaning = Annotated[
    str,
    typer.Option(
        metavar="binary|classes|instances",
        help="What the numbers in the masks mean; found out where there is no doubt.",
    ),
]


def _folders(
    data: Path | None,
    images: Path | None,
    masks: Path | None,
    validation: str,
    validation_images: Path | None,
    validation_masks: Path | None,
) -> Folders:
    """Make one thing of the ways to say where images are."""
    from unet_tutorial._own_images import Folders, beside, find_folders

    if (images is None) != (masks is None):
        missing = "--masks" if masks is None else "--images"
        raise ValueError(f"{missing} is missing: images and masks are given together")
    if (data is None) == (images is None):
        raise ValueError(
            "say where the images are: either DATA, a folder with images/ and masks/, or --images "
            "DIR --masks DIR"
        )
    if data is not None:
        found = find_folders(data)
    else:
        assert images is not None  # for the type checker
        assert masks is not None
        found = Folders(images, masks)
    if (validation_images is None) != (validation_masks is None):
        raise ValueError("--validation-images and --validation-masks are given together")
    if validation_images is not None and validation_masks is not None:
        if validation:
            raise ValueError("give --validation, or --validation-images and --validation-masks")
        return Folders(found.images, found.masks, Folders(validation_images, validation_masks, 0.0))
    if not validation:
        return found
    try:
        return Folders(found.images, found.masks, float(validation))
    except ValueError:
        pass
    if not Path(validation).is_dir():
        raise ValueError(f"--validation {validation}: neither a folder nor a number like 0.2")
    held_out = beside(Path(validation), found.images, found.masks)
    return Folders(found.images, found.masks, held_out)


@app.command()
def train(
    data: Data = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the trained network and its report.")],
    images: Images = None,
    masks: Masks = None,
    validation: HeldOut = "",
    validation_images: HeldOutImages = None,
    validation_masks: HeldOutMasks = None,
    mask_values: MaskMeaning = "auto",
    classes: Annotated[
        str, typer.Option(help="Names by class index, with commas: background,nucleus.")
    ] = "",
    even_brightness: Annotated[
        bool,
        typer.Option(
            "--even-brightness", help="Divide each image by its own brightness: exposures differ."
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps, instead of a few minutes' worth.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another network.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps; by default the fastest.")] = "auto",
) -> None:
    """Train a network on images of your own.

    Stopped with Ctrl-C or killed, the same command goes on. A finished run is not written over.

    Examples: unet-tutorial train nuclei --out runs/nuclei

    unet-tutorial train --images scans --masks drawn --validation 0.3 --out runs/scans

    torchrun --nproc-per-node 2 -m unet_tutorial train nuclei --out runs/nuclei
    """
    from unet_tutorial.distributed import TeamError, join
    from unet_tutorial.runs import train_run

    team = join()  # with the processes that a launcher has started
    with _errors(team.first_to_say):
        folders = _folders(data, images, masks, validation, validation_images, validation_masks)
        try:
            run = train_run(
                folders,
                out,
                mask_values=mask_values,  # type: ignore[arg-type]
                class_names=[name.strip() for name in classes.split(",")] if classes else None,
                even=even_brightness,
                steps=steps,
                seed=seed,
                device=device,
                report=typer.echo,
            )
        except KeyboardInterrupt:
            if team.first:
                typer.echo("stopped by hand; the same command goes on with what is there")
            raise typer.Exit(130) from None
        except TeamError:
            raise typer.Exit(1) from None  # the first process says why
        if run.about["status"] == "interrupted":
            raise typer.Exit(130)
        if team.first:
            typer.echo(f"Use it:\n  unet-tutorial predict --run {out} IMAGE... --out results")


@app.command("predict")
def predict_command(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, or patterns.")
    ],
    *,
    run: Annotated[Path, typer.Option(help="What unet-tutorial train wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for masks and overlays.")],
    overwrite: Annotated[bool, typer.Option(help="Replace results that are there.")] = False,
) -> None:
    """Segment images with a trained network: a mask and an overlay for each.

    The values of a mask are class indices; its palette gives them colors that can be seen. Ends
    with 1 if an image could not be read, after all others are done.

    Example: unet-tutorial predict --run runs/nuclei new/*.png --out results
    """
    from unet_tutorial.runs import Run, predict_files

    with _errors():
        problems = predict_files(Run.load(run), images, out, overwrite=overwrite, report=typer.echo)
        for problem in problems:
            typer.secho(f"error: {problem}", fg=typer.colors.RED, err=True)
        if problems:
            raise typer.Exit(1)


@app.command("export")
def export_command(
    run: Annotated[Path, typer.Argument(help="What unet-tutorial train wrote.")],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="web|page|onnx",
            help="Weights for the book's widgets, a page in one file, or ONNX.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File; by default network.safetensors, .html or .onnx in RUN."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Image that a page begins with.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a trained network for another place: one file, ready for use.

    Examples: unet-tutorial export runs/nuclei --to web

    unet-tutorial export runs/nuclei --to page --image new/scan.png --out nuclei.html

    unet-tutorial export runs/nuclei --to onnx --out nuclei.onnx
    """
    from unet_tutorial.export import export_run

    with _errors():
        export_run(run, to, out, image=image, overwrite=overwrite, report=typer.echo)


@data_app.command("check")
def check_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="One folder as for train, or images and masks."),
    ],
    validation: HeldOut = "",
    validation_images: HeldOutImages = None,
    validation_masks: HeldOutMasks = None,
    mask_values: MaskMeaning = "auto",
) -> None:
    """Find what is wrong with images and masks. Ends with 1 if something must be repaired.

    Examples: unet-tutorial data check nuclei

    unet-tutorial data check scans drawn
    """
    from unet_tutorial.clinic import check

    with _errors():
        if len(folders) > 2:
            raise ValueError(f"give one folder, or images and masks; got {len(folders)}")
        data, images, masks = (folders[0], None, None) if len(folders) == 1 else (None, *folders)
        findings = check(
            _folders(data, images, masks, validation, validation_images, validation_masks),
            mask_values=mask_values,  # type: ignore[arg-type]
        )
        for finding in findings:
            typer.echo(f"{finding}\n")
        repairs = sum(finding.severity == "repair" for finding in findings)
        notes = len(findings) - repairs
        typer.echo(
            f"{repairs} to repair, {notes} note{'s' * (notes != 1)}"
            + ("" if repairs else ": nothing stands in the way of a training")
        )
        if repairs:
            raise typer.Exit(1)


@app.command("exercises")
def exercises_command(
    reset: Annotated[bool, typer.Option("--reset", help="Forget what you have solved.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Forget without asking.")] = False,
) -> None:
    """List the book's exercises, and which of them you have solved.

    Examples: unet-tutorial exercises

    unet-tutorial exercises --reset
    """
    from unet_tutorial.exercises import list_exercises, progress
    from unet_tutorial.exercises._exercise import CHAPTERS
    from unet_tutorial.exercises._progress import forget, progress_file

    view = progress()
    if reset:
        if not yes:
            typer.confirm(f"Forget {len(view.done)} solved exercises?", abort=True)
        forget()
        typer.echo("Forgotten: all exercises are open again.")
        return
    for chapter, title in CHAPTERS.items():
        if list_exercises(chapter):
            typer.echo(f"{chapter} {title}")
        for one in list_exercises(chapter):
            typer.echo(f"  {'✓' if one.number in view.done else '○'} {one.number} {one.title}")
    file = progress_file()
    typer.echo(view.summary())
    if file and file.exists():
        typer.echo(f"Kept in {file}")


if __name__ == "__main__":
    app()
