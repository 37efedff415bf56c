"""Train for the ISBI 2012 score: bent, turned, changed in gray; held out are two blocks of slices.

    python scripts/isbi.py --out book/results/isbi.json

Budgets are steps, chosen so that on two cores with bfloat16 they take about the minutes that their
name says; what they took is written beside each row. The scores are those of the challenge, taken
on slices 10-14 and 25-29 of the training stack, because the labels of its test stack are not
public: they can be compared with each other, and with published test scores only roughly. On a GPU
each row also has the share of what the card computes at best, measured with large matrices before
the training, that the arithmetic of the network's layers comes to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unet_tutorial.board import ISBI_RECIPE, score_whole_training
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.results import rows_to_keep, write_results

STEPS = {
    "cpu": {"3 minutes": 540, "15 minutes": 2650},
    "gpu": {"1 minute": 1500},
    "smoke": {"3 steps": 3},
}


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[str, typer.Option(help="isbi2012, membranes or auto.")] = "auto",
    budget: Annotated[
        list[str] | None, typer.Option(help='Such as "3 minutes"; by default all of the profile.')
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
    seed: Annotated[
        list[int] | None, typer.Option(help="Only these; rows of others are kept.", min=0)
    ] = None,
) -> None:
    """Measure the scores of whole trainings, with and without averaging over flips and turns."""
    lessons = {
        number: setup_for_results(profile, dataset, number) for number in seed or range(seeds)
    }
    lesson = next(iter(lessons.values()))
    known = STEPS[lesson.profile.name]
    chosen = budget or list(known)
    if not set(chosen) <= set(known):
        raise typer.BadParameter(f"budgets of {lesson.profile.name}: {', '.join(known)}")
    settings = {**lesson.settings, **ISBI_RECIPE, "steps": known}
    planned = [{"seed": number, "budget": name} for number in lessons for name in chosen]
    rows: list[dict[str, Any]] = []
    if budget or seed:
        rows += rows_to_keep(out, planned, settings=settings, device=lesson.device)
    for lesson in lessons.values():
        for name in chosen:
            rows += score_whole_training(lesson, known[name], {"budget": name})
            print(rows[-2:], flush=True)
    rows.sort(key=lambda row: (row["steps"], row["seed"]))
    write_results(
        out,
        rows,
        description="whole trainings on ISBI 2012; held out: slices 10-14 and 25-29",
        settings=settings,
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
