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

from unet_tutorial.inference import predict
from unet_tutorial.lesson import setup
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import write_results
from unet_tutorial.speed import matrix_rate, training_flops

# Bending, turning and changes of gray are the paper's ideas, with our strengths for the last;
# the Dice loss, batch normalization and the optimizer are not the paper's.
RECIPE: dict[str, Any] = {
    "batch_size": 4,
    "crop_size": 256,
    "loss": "cross-entropy+dice",
    "elastic": 10.0,
    "rotation": True,
    "gray": 0.2,
}
STEPS = {
    "cpu": {"3 minutes": 540, "10 minutes": 1700},
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
) -> None:
    """Measure the scores of whole trainings, with and without averaging over flips and turns."""
    rows = []
    for seed in range(seeds):
        lesson = setup(profile, dataset, seed)
        known = STEPS[lesson.profile.name]
        for name in budget or known:
            if name not in known:
                raise typer.BadParameter(f"budgets of {lesson.profile.name}: {', '.join(known)}")
            recipe = RECIPE | ({"crop_size": 64} if lesson.profile.name == "smoke" else {})
            on_gpu = lesson.device.type == "cuda"
            rate = matrix_rate(lesson.device, lesson.settings["precision"]) if on_gpu else 0.0
            result = lesson.train(lesson.build(), steps=known[name], validate_every=0, **recipe)
            flops = training_flops(result.model, (result.config.crop_size,) * 2)
            held_out = lesson.data.validation
            for averaged in (False, True):
                maps = [
                    predict(result.model, image, flips_and_turns=averaged)[1]
                    for image in held_out.images
                ]
                scores = evaluate(maps, held_out.labels)
                row = {
                    "dataset": lesson.data.name,
                    "seed": seed,
                    "budget": name,
                    "steps": known[name],
                    "averaged": averaged,
                    "pixel_error": scores.pixel_error,
                    "dice": scores.dice,
                    "v_rand": scores.v_rand,
                    "v_info": scores.v_info,
                    "seconds": round(result.seconds, 1),
                    "crops_per_second": round(result.crops_per_second, 1),
                }
                if on_gpu:
                    share = result.crops_per_second * flops / rate
                    row["share_of_matrix_rate"] = round(share, 4)
                print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
                rows.append(row)
    write_results(
        out,
        rows,
        description="whole trainings on ISBI 2012; held out: slices 10-14 and 25-29",
        settings={**lesson.settings, **RECIPE, "steps": known},
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
