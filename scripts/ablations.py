"""Take the paper's ideas away one at a time, train alike, and write down what is lost.

    python scripts/ablations.py --out book/results/ablations.json
    python scripts/ablations.py --out book/results/ablations.json --part padding --seed 0

Three parts. "elastic": 1, 3, 10 and 20 training slices, with and without elastic deformation; flips
and quarter turns are on in both. "weight map": cells that touch, two classes that count alike, with
and without the border weight map; scored by objects. "padding": a padded and an unpadded network,
and what tiles and the border of the image do to them. Budgets are short: they show directions, not
how good a network can become.

With some parts or seeds, the rows of the others are kept as they are in the file.
"""

from __future__ import annotations

import functools
import math
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
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.inference import predict
from unet_tutorial.lesson import Lesson, setup_for_results
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import rows_to_keep, write_results
from unet_tutorial.training import TrainingConfig, fit

# An unpadded crop of 316 pixels costs about what a padded one of 208 does, and gives 132 back.
BUDGETS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "elastic": {"steps": 110, "batch_size": 4, "crop_size": 192},
        "weight map": {"steps": 110, "batch_size": 8, "crop_size": 128},
        "padding": {"steps": 90, "batch_size": 4, "crop_size": 208, "unpadded": 316, "tile": 128},
    },
    "gpu": {
        "elastic": {"steps": 600, "batch_size": 8, "crop_size": 256},
        "weight map": {"steps": 400, "batch_size": 16, "crop_size": 128},
        "padding": {"steps": 400, "batch_size": 8, "crop_size": 208, "unpadded": 316, "tile": 128},
    },
    "smoke": {
        "elastic": {"steps": 2, "batch_size": 2, "crop_size": 64},
        "weight map": {"steps": 2, "batch_size": 2, "crop_size": 64},
        "padding": {"steps": 2, "batch_size": 1, "crop_size": 64, "unpadded": 204, "tile": 64},
    },
}
SLICES = (1, 3, 10, 20)
ELASTIC, BORDER_WEIGHT = 10.0, 10.0  # the paper's strengths


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
    for data in _cells(lesson.profile.name == "smoke"):
        for variant, weight in (("balanced", 0.0), ("balanced, weight map", BORDER_WEIGHT)):
            changes = budget | {"balanced": True, "border_weight": weight}
            model = lesson.build(UNet)
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


@functools.cache
def _cells(small: bool) -> list[SegmentationData]:
    return cells_that_touch(size=64, n_images=4) if small else cells_that_touch()


def padding(lesson: Lesson, budget: dict[str, Any]) -> list[dict[str, Any]]:
    """Train a padded and an unpadded network; look at seams and at the border of the image."""
    rows = []
    held_out = lesson.data.validation
    sizes = {"padded": budget["crop_size"], "unpadded": budget["unpadded"]}
    shared = {name: budget[name] for name in ("steps", "batch_size")}
    tile = budget["tile"]
    for variant, crop_size in sizes.items():
        options = {"padding": "valid"} if variant == "unpadded" else {}
        model = lesson.build(UNet, **options)
        result = _train(lesson, model, lesson.data, shared | {"crop_size": crop_size})
        wholes = [predict(model, image, precision="float32") for image in held_out.images]
        pieces = [
            # Unpadded tiles begin at multiples of 16: this one answers for a square of the same
            # side as the padded tile, and reads the margin of 92 and a rest of 4 besides.
            predict(model, image, precision="float32", tile=tile + 188)
            if variant == "unpadded"
            else predict_apart(model, image, tile, precision="float32")
            for image in held_out.images
        ]
        scores = evaluate([whole[1] for whole in wholes], held_out.labels)
        classes = [whole.argmax(axis=0) for whole in wholes]
        rows.append(
            {
                **_row(
                    "padding", lesson.data.name, lesson.seed, len(lesson.data.training), variant
                ),
                "pixel_error": scores.pixel_error,
                "dice": scores.dice,
                "v_rand": scores.v_rand,
                "v_info": scores.v_info,
                **compare_tiles(pieces, wholes, tile),
                **error_by_frame(classes, held_out.labels),
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


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Write None where there was nothing to measure: JSON has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


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
    seed: Annotated[list[int] | None, typer.Option(help="Only these seeds.", min=0)] = None,
) -> None:
    """Measure what each of the paper's ideas brings."""
    chosen = part or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise typer.BadParameter(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    lessons = {
        number: setup_for_results(profile, dataset, number) for number in seed or range(seeds)
    }
    lesson = next(iter(lessons.values()))
    budgets = BUDGETS[lesson.profile.name]
    settings = {
        **{name: lesson.settings[name] for name in ("profile", "base_channels", "precision")},
        "elastic_pixels": ELASTIC,
        "border_weight": BORDER_WEIGHT,
        "budgets": budgets,
    }
    planned = [{"seed": number, "part": name} for number in lessons for name in chosen]
    rows: list[dict[str, Any]] = []
    if part or seed:
        rows += rows_to_keep(out, planned, settings=settings, device=lesson.device)
    for lesson in lessons.values():
        for name in chosen:
            rows += map(_plain, PARTS[name](lesson, budgets[name]))
    order = list(PARTS)
    rows.sort(key=lambda row: (order.index(row["part"]), row["seed"]))  # else as measured
    write_results(
        out,
        rows,
        description="the paper's ideas taken away one at a time, short trainings; ISBI 2012: held "
        "out are slices 10-14 and 25-29",
        settings=settings,
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
