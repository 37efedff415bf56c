"""Train every rung of the board alike over several seeds and write down how each scores.

The chapters read the file that this script writes:

    python scripts/board.py --out book/results/board.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unet_tutorial.board import RUNGS, VARIANTS, measure, membrane_maps
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.results import write_results


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[list[str] | None, typer.Option(help="Data sets; by default both.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
) -> None:
    """Measure what each part of the U brings, at equal steps."""
    rows = []
    # Where ISBI 2012 cannot be had, "auto" is the synthetic set, which then comes alone.
    first = setup_for_results(profile, "auto").data.name
    for name in dataset or sorted({first, "membranes"}):
        for seed in range(seeds):
            lesson = setup_for_results(profile, name, seed)
            for rung, recipe in {**RUNGS, **VARIANTS}.items():
                model, seconds = None, 0.0
                if recipe:
                    network, options = recipe
                    result = lesson.train(lesson.build(network, **options), validate_every=0)
                    model, seconds = result.model, result.seconds
                held_out = lesson.data.validation
                scores = measure(membrane_maps(model, held_out), held_out)
                print(f"{name}, seed {seed}, {rung}: pixel error {scores['pixel_error']:.4f}")
                rows.append(
                    {
                        "dataset": name,
                        "seed": seed,
                        "rung": rung,
                        "parameters": sum(p.numel() for p in model.parameters()) if model else 0,
                        **scores,
                        "seconds": round(seconds, 1),
                    }
                )
    write_results(
        out,
        rows,
        description="every rung of the board, trained alike; held out: slices 10-14 and 25-29",
        settings=lesson.settings,
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
