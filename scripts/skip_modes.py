"""Train concat, add and none alike over several seeds and write down how they score.

Chapter 4 reads the file that this script writes:

    python scripts/skip_modes.py --out book/results/skip_modes.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unet_tutorial.inference import predict
from unet_tutorial.lesson import setup
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import write_results

SKIPS = ("concat", "add", "none")


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[list[str] | None, typer.Option(help="Data sets; by default both.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
) -> None:
    """Measure what the skip connections bring, at equal steps."""
    rows = []
    # Where ISBI 2012 cannot be had, "auto" is the synthetic set, which then comes alone.
    first = setup(profile, "auto").data.name
    for name in dataset or sorted({first, "membranes"}):
        for seed in range(seeds):
            lesson = setup(profile, name, seed)
            for skip in SKIPS:
                result = lesson.train(lesson.build(skip=skip), validate_every=0)
                held_out = lesson.data.validation
                membrane = [predict(result.model, image)[1] for image in held_out.images]
                scores = evaluate(membrane, held_out.labels)
                print(f"{name}, seed {seed}, {skip}: {scores}", flush=True)
                rows.append(
                    {
                        "dataset": name,
                        "seed": seed,
                        "skip": skip,
                        **scores.as_dict(),
                        "seconds": round(result.seconds, 1),
                    }
                )
    write_results(
        out,
        rows,
        description="concat, add and none, trained alike; held out: slices 10-14 and 25-29",
        settings={
            "profile": lesson.profile.name,
            "base_channels": lesson.profile.base_channels,
            "steps": result.config.steps,
            "batch_size": result.config.batch_size,
            "crop_size": result.config.crop_size,
            "precision": result.precision,
        },
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
