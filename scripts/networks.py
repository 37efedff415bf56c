"""Train the small networks that run in the pages of the book, and score what was written.

    python scripts/networks.py --out book/results/networks.json

One for each data set and each way to treat the skips, 8 channels wide, so that a page can load it;
trained like the whole trainings of chapter 5, written in half precision with batch normalization
folded in. Scored is the file, read back, in float32: what a page computes. With ``--check`` nothing
is trained: the files that are there are scored again and compared with the result file.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from unet_tutorial._files import write_whole
from unet_tutorial.board import ISBI_RECIPE
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.export import NETWORKS as FOLDER
from unet_tutorial.export import load_network, read_network, write_network
from unet_tutorial.inference import predict
from unet_tutorial.lesson import Lesson, setup, setup_for_results
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import read_results, rows_to_keep, write_results
from unet_tutorial.unet import UNet

BASE_CHANNELS = 8
STEPS = {"cpu": 1000, "gpu": 3000, "smoke": 2}
DATA = {"isbi": "isbi2012", "membranes": "membranes"}
TITLES = {"isbi": "electron micrographs (ISBI 2012)", "membranes": "synthetic membranes"}
SKIPS = {"concat": "skips concatenated", "add": "skips added", "none": "no skips"}
TERMS = {
    "isbi": "Made from the ISBI 2012 data: see their terms before using it beyond research.",
    "membranes": "MIT, as this package.",
}
NETWORKS = [f"{data}-{skip}" for data in DATA for skip in SKIPS]
TOLERANCE = 0.01
STORED = FOLDER.parents[1] / "book" / "results" / "networks.json"


def score(model: UNet, held_out: SegmentationData) -> dict[str, float]:
    """Score a network in float32 on whole images."""
    maps = [predict(model, image, precision="float32")[1] for image in held_out.images]
    scores = evaluate(maps, held_out.labels).as_dict()
    return {key: scores[key] for key in ("pixel_error", "dice", "iou", "v_rand", "v_info")}


def make(name: str, lesson: Lesson, folder: Path) -> dict[str, Any]:
    """Train a network, write it, and score what was written."""
    data, skip = name.split("-")
    steps = STEPS[lesson.profile.name]
    recipe = ISBI_RECIPE | ({"crop_size": 64} if lesson.profile.name == "smoke" else {})
    network: UNet = lesson.build(base_channels=BASE_CHANNELS, skip=skip)
    trained = lesson.train(network, steps=steps, validate_every=0, **recipe)
    file = folder / f"{name}.safetensors"
    about: dict[str, Any] = {
        "title": f"{TITLES[data]}, {SKIPS[skip]}",
        "dataset": lesson.data.name,
        "class_names": list(lesson.data.class_names),
        "steps": steps,
        "terms": TERMS[data],
    }
    write_network(file, trained.model, about=about)
    scores = score(read_network(file)[0], lesson.data.validation)
    words = (
        f"Trained for {steps:,} steps; on {len(lesson.data.validation.images)} images that it "
        f"never saw: pixel error {scores['pixel_error']:.3f}, membrane Dice {scores['dice']:.2f}, "
        f"V_Rand {scores['v_rand']:.3f}."
    )
    write_network(file, trained.model, about={**about, "scores": scores, "words": words})
    return {
        "network": name,
        "dataset": lesson.data.name,
        "skip": skip,
        "seed": lesson.seed,
        "steps": steps,
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "bytes": file.stat().st_size,
        "seconds": round(trained.seconds, 1),
        **scores,
    }


def check(out: Path, names: list[str]) -> None:
    """Score the committed files again; fail if one differs from the result file."""
    rows = {row["network"]: row for row in read_results(out)["rows"]}
    worst = 0.0
    for data, title in DATA.items():
        held_out = setup("cpu", title).data.validation
        for name in [name for name in names if name.startswith(data)]:
            scores = score(load_network(name)[0], held_out)
            differs = max(abs(scores[key] - rows[name][key]) for key in scores)
            print(f"{name}: {differs:.4f} from the result file at most", flush=True)
            worst = max(worst, differs)
    if not worst <= TOLERANCE:
        raise typer.Exit(1)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    into: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the networks; by default named after --out, "
            "for the stored result file the package's own."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Such as isbi-concat; rows of others are kept.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Score the files that are there again.")
    ] = False,
) -> None:
    """Make the networks of the pages and measure how good they are."""
    names = only or NETWORKS
    if not set(names) <= set(NETWORKS):
        raise typer.BadParameter(f"networks: {', '.join(NETWORKS)}")
    if check_only:
        check(out, names)
        return
    # Measured elsewhere, on a GPU or as a trial, they do not replace those of the package.
    folder = into or (FOLDER if out.resolve() == STORED else out.with_suffix(""))
    if profile == "smoke" and folder == FOLDER:
        raise typer.BadParameter("a trial must not replace the networks: write to another --out")
    smoke = profile == "smoke"
    lessons = {
        data: setup_for_results(profile, "membranes" if smoke else title)
        for data, title in DATA.items()
    }
    lesson = next(iter(lessons.values()))
    settings = {
        **lesson.settings,
        **ISBI_RECIPE,
        "base_channels": BASE_CHANNELS,
        "steps": STEPS[lesson.profile.name],
        "weights": "float16",
    }
    planned = [{"network": name} for name in names]
    rows: list[dict[str, Any]] = []
    if only:
        rows += rows_to_keep(out, planned, settings=settings, device=lesson.device)
    with TemporaryDirectory() as made:
        for name in names:
            rows.append(make(name, lessons[name.split("-")[0]], Path(made)))
            print(rows[-1], flush=True)
        # Networks and their scores are replaced together, when all is done.
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(made).iterdir():
            write_whole(folder / file.name, partial(shutil.copyfile, file))
    rows.sort(key=lambda row: NETWORKS.index(row["network"]))
    write_results(
        out,
        rows,
        description="the networks that run in the pages, 8 channels wide, in half precision",
        settings=settings,
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
