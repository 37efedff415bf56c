"""What the changes of chapter 6 do to the result, and whether averaging weights pays.

    python scripts/quality.py --out book/results/quality.json

The profile's training on ISBI 2012, in the precision that the device is fast in and in float32,
over three seeds. In the former also the exponential moving average of the weights over the steps,
taken during the same training, and the predictions averaged over flips and turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unet_tutorial import UNet
from unet_tutorial.inference import predict
from unet_tutorial.lesson import setup_for_results
from unet_tutorial.metrics import evaluate
from unet_tutorial.results import write_results

DECAY = 0.98  # the weights of about the last fifty steps


@contextmanager
def moving_average(model: UNet, decay: float = DECAY) -> Iterator[UNet]:
    """Average the weights of a network over the steps of all optimizers within.

    Yields
    ------
    UNet
        A copy with the averaged weights, and statistics of batch normalization averaged alike.
    """
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    # The hook lets `fit` be measured as it is: it has no line for an average.
    hook = register_optimizer_step_post_hook(lambda *_: average.update_parameters(model))
    try:
        yield average.module  # type: ignore[misc]
    finally:
        hook.remove()


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write; replaced when all is done.")],
    profile: Annotated[str, typer.Option(help="cpu, gpu or smoke.")] = "auto",
    dataset: Annotated[str, typer.Option(help="isbi2012, membranes or auto.")] = "auto",
    seeds: Annotated[int, typer.Option(help="Number of seeds, from 0.", min=1)] = 3,
) -> None:
    """Measure the scores of the last and of the averaged weights, in two precisions."""
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        lesson = setup_for_results(profile, dataset, seed)
        held_out = lesson.data.validation
        for precision in dict.fromkeys([lesson.settings["precision"], "float32"]):
            model: UNet = lesson.build().to(lesson.device)
            with moving_average(model) as average:
                result = lesson.train(model, precision=precision, validate_every=0)
            first = precision == lesson.settings["precision"]
            networks = {"last": model, "moving average": average} if first else {"last": model}
            for weights, network in networks.items():
                for averaged in (False, True) if first else (False,):
                    maps = [
                        predict(network, image, precision=precision, flips_and_turns=averaged)[1]
                        for image in held_out.images
                    ]
                    scores = evaluate(maps, held_out.labels)
                    rows.append(
                        {
                            "dataset": lesson.data.name,
                            "seed": seed,
                            "precision": precision,
                            "weights": weights,
                            "flips_and_turns": averaged,
                            "pixel_error": scores.pixel_error,
                            "dice": scores.dice,
                            "v_rand": scores.v_rand,
                            "v_info": scores.v_info,
                            "seconds": round(result.seconds, 1),
                        }
                    )
                    print(rows[-1])
    write_results(
        out,
        rows,
        description="the training of the chapters in two precisions; last weights and their "
        "moving average, as they are and averaged over flips and turns",
        settings={**lesson.settings, "decay": DECAY},
        device=lesson.device,
    )


if __name__ == "__main__":
    typer.run(main)
