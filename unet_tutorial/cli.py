"""The command line: ``unet-tutorial``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from unet_tutorial import __version__

app = typer.Typer(
    help="Inside U-Net: the book's tools.", no_args_is_help=True, pretty_exceptions_enable=False
)
chapters_app = typer.Typer(help="Run, renew and build the chapters.", no_args_is_help=True)
app.add_typer(chapters_app, name="chapters")

Root = Annotated[Path, typer.Option(help="Root of a checkout of the book.")]


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the package's own errors into one message and exit code 1."""
    from unet_tutorial.chapters import ChapterError

    try:
        yield
    except (ChapterError, ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from None


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
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke; by default auto.")] = "",
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


if __name__ == "__main__":
    app()
