"""Train the contracting path with its bottleneck at depth 1 to 4, alike, and score all four.

Chapter 2 reads the file that this script writes:

    python scripts/depths.py --out book/results/depths.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unet_tutorial.board import measure, membrane_maps
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.partial import ContractingPath
from unet_tutorial.results import write_results
from unet_tutorial.shapes import receptive_field

DEPTHS = (1, 2, 3, 4)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[list[str] | None, typer.Option(help="Data sets; by default both.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
) -> None:
    """Measure what a deeper contracting path knows, and what it loses, at equal steps."""
    rows = []
    first = setup_for_results(profile, "auto").data.name
    for name in dataset or sorted({first, "membranes"}):
        for seed in range(seeds):
            lesson = setup_for_results(profile, name, seed)
            for depth in DEPTHS:
                model = lesson.build(ContractingPath, bottleneck=True, depth=depth)
                result = lesson.train(model, validate_every=0)
                held_out = lesson.data.validation
                scores = measure(membrane_maps(model, held_out), held_out)
                rims = scores["rim_error"]
                print(f"{name}, seed {seed}, depth {depth}: rims {rims}")
                rows.append(
                    {
                        "dataset": name,
                        "seed": seed,
                        "depth": depth,
                        "field": receptive_field(model, "bottleneck").height,
                        **scores,
                        "seconds": round(result.seconds, 1),
                    }
                )
    write_results(
        out,
        rows,
        description="contracting path with bottleneck at depth 1 to 4; held out: 10-14 and 25-29",
        settings=lesson.settings,
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
