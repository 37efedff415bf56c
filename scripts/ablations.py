"""Take the paper's ideas away one at a time, train alike, and write down what is lost.

    python scripts/ablations.py --out book/results/ablations.json
    python scripts/ablations.py --out book/results/ablations.json --part padding

Three parts. "elastic": 1, 3, 10 and 20 training slices, with and without elastic deformation; flips
and quarter turns are on in both. "weight map": cells that touch, two classes that count alike, with
and without the border weight map; scored by objects. "padding": a padded and an unpadded network,
and what tiles and the border of the image do to them. Budgets are short: they show directions, not
how good a network can become.

With one part, the rows of the others are kept as they are in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from unet_tutorial import UNet
from unet_tutorial.ablations import (
    cells_that_touch,
    compare_tiles,
    count_objects,
    error_by_frame,
    few_images,
    predict_apart,
)
from unet_tutorial.board import membrane_maps
from unet_tutorial.devices import describe_machine
from unet_tutorial.inference import predict
from unet_tutorial.lesson import Lesson, setup
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import read_results, write_results
from unet_tutorial.training import TrainingConfig, fit

# The paper's strengths where it gives them: 10 pixels, w0 = 10, σ = 5.
BUDGETS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "elastic": {"steps": 160, "batch_size": 4, "crop_size": 192},
        "weight map": {"steps": 150, "batch_size": 8, "crop_size": 128},
        "padding": {"steps": 120, "batch_size": 4, "crop_size": 256},
    },
    "gpu": {
        "elastic": {"steps": 600, "batch_size": 8, "crop_size": 256},
        "weight map": {"steps": 400, "batch_size": 16, "crop_size": 128},
        "padding": {"steps": 400, "batch_size": 8, "crop_size": 256},
    },
    "smoke": {
        "elastic": {"steps": 2, "batch_size": 2, "crop_size": 64},
        "weight map": {"steps": 2, "batch_size": 2, "crop_size": 64},
        "padding": {"steps": 2, "batch_size": 1, "crop_size": 128},
    },
}
SLICES = (1, 3, 10, 20)
ELASTIC, BORDER_WEIGHT = 10.0, 10.0
# An unpadded crop of 316 pixels costs about what a padded one of 256 does, and gives 132 back.
VALID_CROP, TILE, VALID_TILE = 316, 128, 316


def elastic(lesson: Lesson, budget: dict[str, Any]) -> list[dict[str, Any]]:
    """Train on few slices, bent and not bent."""
    rows = []
    held_out = lesson.data.validation
    available = len(lesson.data.training)
    for slices in (number for number in SLICES if number <= available):
        few = few_images(lesson.data, slices, lesson.seed)
        for variant, bending in (("not bent", 0.0), ("bent", ELASTIC)):
            result = _train(lesson, lesson.build(), few, budget | {"elastic": bending})
            scores = evaluate(membrane_maps(result.model, held_out), held_out.labels)
            rows.append(
                {
                    **_row("elastic", lesson.data.name, lesson.seed, slices, variant),
                    "pixel_error": scores.pixel_error,
                    "dice": scores.dice,
                    "v_rand": scores.v_rand,
                    "v_info": scores.v_info,
                    "training_loss": float(np.mean(result.losses[-20:])),
                    "seconds": round(result.seconds, 1),
                }
            )
            _say(rows[-1])
    return rows


def weight_map(lesson: Lesson, budget: dict[str, Any]) -> list[dict[str, Any]]:
    """Train on cells that touch, with and without more weight between them."""
    rows = []
    small = {"size": 64, "n_images": 4} if lesson.profile.name == "smoke" else {}
    for data in cells_that_touch(**small):
        for variant, weight in (("balanced", 0.0), ("balanced, weight map", BORDER_WEIGHT)):
            changes = budget | {"balanced": True, "border_weight": weight}
            model = lesson.build()
            result = _train(lesson, model, data, changes)
            counts = count_objects(model, data.validation)
            rows.append(
                {
                    **_row("weight map", data.name, lesson.seed, len(data.training), variant),
                    **counts._asdict(),
                    "recovered_share": counts.recovered / counts.objects,
                    "merged_share": counts.merged / counts.objects,
                    "split_share": counts.split / counts.objects,
                    "missed_share": counts.missed / counts.objects,
                    "cell_pixel_error": result.validations[-1].pixel_error,
                    "cell_dice": result.validations[-1].dice,
                    "seconds": round(result.seconds, 1),
                }
            )
            _say(rows[-1])
    return rows


def padding(lesson: Lesson, budget: dict[str, Any]) -> list[dict[str, Any]]:
    """Train a padded and an unpadded network; look at seams and at the border of the image."""
    rows = []
    held_out = lesson.data.validation
    for variant in ("padded", "unpadded"):
        unpadded = variant == "unpadded"
        options = {"padding": "valid"} if unpadded else {}
        changes = budget | ({"crop_size": VALID_CROP} if unpadded else {})
        if unpadded and lesson.profile.name == "smoke":
            changes["crop_size"] = 204  # one of the smallest, for small images
        model = lesson.build(UNet, **options)
        result = _train(lesson, model, lesson.data, changes)
        wholes = [predict(model, image, precision="float32") for image in held_out.images]
        if unpadded:
            pieces = [
                predict(model, image, precision="float32", tile=VALID_TILE)
                for image in held_out.images
            ]
        else:
            pieces = [
                predict_apart(model, image, TILE, precision="float32") for image in held_out.images
            ]
        scores = evaluate([whole[1] for whole in wholes], held_out.labels)
        classes = [whole.argmax(axis=0) for whole in wholes]
        frames = error_by_frame(classes, held_out.labels)
        rows.append(
            {
                **_row("padding", lesson.data.name, lesson.seed, len(lesson.data.training), variant),
                "pixel_error": scores.pixel_error,
                "dice": scores.dice,
                "v_rand": scores.v_rand,
                "v_info": scores.v_info,
                **compare_tiles(pieces, wholes, TILE),
                **frames,
                "seconds": round(result.seconds, 1),
            }
        )
        _say(rows[-1])
    return rows


PARTS = {"elastic": elastic, "weight map": weight_map, "padding": padding}


def _train(lesson: Lesson, model: UNet, data: Any, changes: dict[str, Any]) -> Any:
    config = TrainingConfig(seed=lesson.seed, device=str(lesson.device), **changes)
    return fit(model, data, config, report=None)


def _row(part: str, dataset: str, seed: int, images: int, variant: str) -> dict[str, Any]:
    return {"part": part, "dataset": dataset, "seed": seed, "images": images, "variant": variant}


def _say(row: dict[str, Any]) -> None:
    words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(", ".join(words), flush=True)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[str, typer.Option(help="isbi2012, membranes or auto.")] = "auto",
    part: Annotated[
        list[str] | None, typer.Option(help="elastic, weight map, padding; by default all.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
) -> None:
    """Measure what each of the paper's ideas brings."""
    chosen = part or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise typer.BadParameter(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    fresh: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for seed in range(seeds):
        lesson = setup(profile, dataset, seed)
        for name in chosen:
            fresh[name] += PARTS[name](lesson, BUDGETS[lesson.profile.name][name])
    budgets = BUDGETS[lesson.profile.name]
    settings = {
        **{name: lesson.settings[name] for name in ("profile", "base_channels", "precision")},
        "elastic_pixels": ELASTIC,
        "border_weight": BORDER_WEIGHT,
        "unpadded_crop_size": VALID_CROP,
        "tile": TILE,
        "budgets": budgets,
    }
    rows = []
    for name in PARTS:
        rows += fresh.get(name) or _kept(out, name, settings, describe_machine(lesson.device))
    write_results(
        out,
        rows,
        description="the paper's ideas taken away one at a time, short trainings; ISBI 2012: held "
        "out are slices 10-14 and 25-29",
        settings=settings,
        device=lesson.device,
    )


def _kept(
    out: Path, part: str, settings: dict[str, Any], machine: dict[str, Any]
) -> list[dict[str, Any]]:
    """Take over the rows of a part that is not measured now."""
    if not out.exists():
        return []
    before = read_results(out)
    if before["machine"] != machine or before["settings"] != settings:
        raise typer.BadParameter(
            f"{out} was measured on another machine or with other settings, so one part of it "
            "cannot be replaced: measure all, or write to another file"
        )
    return [row for row in before["rows"] if row["part"] == part]


if __name__ == "__main__":
    typer.run(main)
