"""Train on 1, 3, 10 and 20 labeled slices, from nothing and from encoders that learned before.

    python scripts/encoders.py --out book/results/encoders.json

Six ways to begin (`unet_tutorial.label_efficiency.ARMS`), alike in steps and crops, five of them in
the expansive path too. The labeled slices come in turn from the two halves of the stack, those of
fewer are among those of more, and the settings name them; held out are slices 10-14 and 25-29. Each
arm gets the learning rate that does best on ten training slices after a training on the other ten:
the held-out slices have no say. Synthetic membranes are learned from once for each seed.

What is measured so far is in a file beside, with the ending ``.partial``: the same command goes on
with it. The result file is replaced when all is done.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from unet_tutorial.ablations import few_images
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.label_efficiency import (
    ARMS,
    ENCODER,
    SLICES,
    build_arm,
    chosen_rate,
    learn_membranes,
    score,
)
from unet_tutorial.lesson import Lesson, setup_for_results
from unet_tutorial.results import rows_to_keep, write_results
from unet_tutorial.training import TrainingConfig, fit, validate

BUDGETS: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 180, "batch_size": 4, "crop_size": 128, "pre-training": 400},
    "gpu": {"steps": 1000, "batch_size": 8, "crop_size": 256, "pre-training": 2000},
    "smoke": {"steps": 1, "batch_size": 2, "crop_size": 64, "pre-training": 1},
}
RATES = (1e-3, 3e-3, 1e-2)
CHOICE_SLICES = 10  # to train on while the learning rate is chosen


class Measurement:
    """The rows so far, and what is needed for the next ones."""

    def __init__(self, out: Path, lessons: dict[int, Lesson]) -> None:
        self.partial, self.lessons = out.with_name(f"{out.name}.partial"), lessons
        self.lesson = next(iter(lessons.values()))
        self.smoke = self.lesson.profile.name == "smoke"
        self.budget = BUDGETS[self.lesson.profile.name]
        self.rates = RATES[1:2] if self.smoke else RATES
        available = len(self.lesson.data.training)
        self.slices = [number for number in SLICES if number <= available]
        self.settings = {
            **self.lesson.settings,
            **self.budget,
            "encoder": ENCODER,
            "learning_rates": list(self.rates),
            "labeled": {
                f"seed {seed}": {str(number): self.labeled(seed, number) for number in self.slices}
                for seed in lessons
            },
        }
        device = self.lesson.device
        self.rows = rows_to_keep(self.partial, [], settings=self.settings, device=device)
        if self.rows:
            print(f"going on after {len(self.rows)} rows of {self.partial}", flush=True)
        self.learned: dict[int, dict[str, Tensor]] = {}

    def labeled(self, seed: int, number: int) -> str:
        """Name the slices that have labels."""
        return ", ".join(few_images(self.lessons[seed].data, number, seed).training.image_names)

    def has(self, **columns: Any) -> bool:
        """Tell whether there is such a row already."""
        return any(all(row.get(k) == v for k, v in columns.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row down, and say so."""
        row = {"dataset": self.lesson.data.name, **row}
        self.rows.append(row)
        write_results(
            self.partial,
            self.rows,
            description="label efficiency: six ways to begin, on 1 to 20 labeled slices",
            settings=self.settings,
            device=self.lesson.device,
        )
        told = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        print(time.strftime("%H:%M:%S"), told, flush=True)

    def config(self, seed: int, **changes: Any) -> TrainingConfig:
        """Make the settings of a training."""
        budget = {key: self.budget[key] for key in ("steps", "batch_size", "crop_size")}
        device = str(self.lesson.device)
        return TrainingConfig(**{**budget, "seed": seed, "device": device, **changes})

    def train(self, arm: str, data: SegmentationData, seed: int, rate: float) -> Any:
        """Train one network."""
        learned = self.learn(seed) if ARMS[arm].weights == "membranes" else None
        model = build_arm(arm, self.lessons[seed], learned)
        only = data.training  # scored once, afterwards
        return fit(model, only, self.config(seed, learning_rate=rate), report=None)

    def learn(self, seed: int) -> dict[str, Tensor]:
        """Learn from synthetic membranes, once for a seed."""
        if seed not in self.learned:
            config = replace(self.config(seed), steps=self.budget["pre-training"])
            size = {"n_images": 2, "size": 64} if self.smoke else {}
            self.learned[seed], result = learn_membranes(self.lessons[seed], config, **size)
            row = {"part": "pre-training", "seed": seed, "steps": config.steps}
            if not self.has(**row):
                scores = result.validations[-1]
                self.add(
                    {
                        **row,
                        "seconds": round(result.seconds, 1),
                        "pixel_error": scores.pixel_error,
                        "dice": scores.dice,
                    }
                )
        return self.learned[seed]

    def choose(self, arm: str) -> None:
        """Try the learning rates of an arm, on training slices alone."""
        seed = self.lesson.seed
        training = self.lesson.data.training
        number = min(CHOICE_SLICES, len(training) // 2)
        few = few_images(self.lesson.data, number, seed).training
        others = [k for k, name in enumerate(training.image_names) if name not in few.image_names]
        for rate in self.rates:
            row = {"part": "learning rate", "arm": arm, "learning_rate": rate, "seed": seed}
            if self.has(**row):
                continue
            result = self.train(arm, few, seed, rate)
            scores = validate(result.model, training.subset(others), result.steps_done)
            self.add(
                {
                    **row,
                    "slices": number,
                    "seconds": round(result.seconds, 1),
                    "pixel_error": scores.pixel_error,
                    "dice": scores.dice,
                }
            )

    def measure(self, arm: str, slices: int, seed: int) -> None:
        """Train an arm on few slices, and score it on those that are held out."""
        row = {"part": "scores", "arm": arm, "slices": slices, "seed": seed}
        if self.has(**row):
            return
        data = self.lessons[seed].data
        few = few_images(data, slices, seed)
        rate = chosen_rate(self.rows, arm)
        result = self.train(arm, few, seed, rate)
        weights = list(result.model.parameters())
        self.add(
            {
                **row,
                "learning_rate": rate,
                "weights": sum(one.numel() for one in weights),
                "trained_weights": sum(one.numel() for one in weights if one.requires_grad),
                "seconds": round(result.seconds, 1),
                **score(result.model, data.validation),
            }
        )


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[str, typer.Option(help="isbi2012, membranes or auto.")] = "auto",
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
) -> None:
    """Measure what a pre-trained contracting path is worth, in labeled slices."""
    lessons = {seed: setup_for_results(profile, dataset, seed) for seed in range(seeds)}
    measurement = Measurement(out, lessons)
    for arm in ARMS:
        measurement.choose(arm)
    for seed in lessons:
        for slices in measurement.slices:
            for arm in ARMS:
                measurement.measure(arm, slices, seed)
    measurement.partial.replace(out)


if __name__ == "__main__":
    typer.run(main)
