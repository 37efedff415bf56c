"""Hold out every slice of ISBI 2012 once, in contiguous blocks, and score the whole training.

    python scripts/cross_validation.py --out book/results/cross_validation.json

The recipe is that of scripts/isbi.py with a quarter of the steps of its three minutes. Neighboring
slices show the same cells, so folds are blocks of neighbors; only the two slices beside a cut have
a neighbor on the other side of it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from unet_tutorial.board import ISBI_RECIPE, score_whole_training
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.results import rows_to_keep, write_results

STEPS = {"cpu": 135, "gpu": 1500, "smoke": 3}


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[str, typer.Option(help="isbi2012, membranes or auto.")] = "auto",
    folds: Annotated[int, typer.Option(help="Blocks, each held out once.", min=2)] = 3,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
    seed: Annotated[
        list[int] | None, typer.Option(help="Only these; rows of others are kept.", min=0)
    ] = None,
) -> None:
    """Measure the scores of every block by networks that never saw it."""
    lessons = {
        number: setup_for_results(profile, dataset, number) for number in seed or range(seeds)
    }
    lesson = next(iter(lessons.values()))
    steps = STEPS[lesson.profile.name]
    settings = {**lesson.settings, **ISBI_RECIPE, "steps": steps, "folds": folds}
    planned = [{"seed": number} for number in lessons]
    rows: list[dict[str, Any]] = []
    if seed:
        rows += rows_to_keep(out, planned, settings=settings, device=lesson.device)
    for lesson in lessons.values():
        for block in np.array_split(np.arange(len(lesson.data)), folds):
            data = dataclasses.replace(
                lesson.data, validation_indices=tuple(int(index) for index in block)
            )
            fold = f"slices {block[0]} to {block[-1]}"
            there = dataclasses.replace(lesson, data=data)
            rows += score_whole_training(there, steps, {"fold": fold})
            print(rows[-2:], flush=True)
    rows.sort(key=lambda row: row["seed"])
    write_results(
        out,
        rows,
        description=f"whole trainings on ISBI 2012, {folds} contiguous folds, each held out once",
        settings=settings,
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
