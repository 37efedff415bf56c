"""The score board of the book: one rung for every part of the U, all trained alike.

Each chapter adds a rung. `RUNGS` says what each of them is; ``scripts/board.py`` trains them over
several seeds on both data sets and writes ``book/results/board.json``; the chapters read it with
`show_board` and set their own fresh result beside it with `beside_the_board`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.filters import threshold_otsu
from torch import nn

from unet_tutorial.datasets import SegmentationData
from unet_tutorial.inference import predict
from unet_tutorial.metrics import Scores, error_by_distance, evaluate, grid_error, rim_error
from unet_tutorial.partial import ContractingPath, ThreeConvolutions
from unet_tutorial.results import mean_and_spread, read_results
from unet_tutorial.speed import matrix_rate, training_flops
from unet_tutorial.unet import UNet

if TYPE_CHECKING:  # lessons sit on top
    from unet_tutorial.lesson import Lesson

# What `lesson.build` takes: a network and its options. None: nothing is trained.
Recipe = tuple[type[nn.Module], dict[str, Any]]
RUNGS: dict[str, Recipe | None] = {
    "Otsu's threshold": None,
    "three convolutions": (ThreeConvolutions, {}),
    "contracting path": (ContractingPath, {}),
    "+ bottleneck": (ContractingPath, {"bottleneck": True}),
    "+ expansive path": (UNet, {"skip": "none"}),
    "+ skip connections": (UNet, {}),
}
# Tried beside a rung, and no step of the book's way up.
VARIANTS: dict[str, Recipe] = {
    "bilinear expansive path": (UNet, {"skip": "none", "upsampling": "bilinear"}),
    "skips added": (UNet, {"skip": "add"}),
}
# Of the whole trainings on ISBI 2012. Bending, turning and changes of gray are the paper's ideas,
# with our strengths for the last; the Dice loss, batch normalization and the optimizer are not.
ISBI_RECIPE: dict[str, Any] = {
    "batch_size": 4,
    "crop_size": 256,
    "loss": "cross-entropy+dice",
    "elastic": 10.0,
    "rotation": True,
    "gray": 0.2,
}
COLUMNS = {"pixel_error": "pixel error", "dice": "Dice", "v_rand": "V_Rand", "v_info": "V_Info"}


def otsu_membrane(image: np.ndarray) -> np.ndarray:
    """Call membrane what is darker than Otsu's threshold: the oldest answer there is.

    Parameters
    ----------
    image : numpy.ndarray
        (1, H, W) or (H, W) gray values.

    Returns
    -------
    numpy.ndarray
        (H, W) float32: 1 where the image is darker than the threshold that best parts its
        histogram in two, else 0.

    Examples
    --------
    >>> otsu_membrane(np.array([[0.9, 0.8, 0.1, 0.9]])).tolist()
    [[0.0, 0.0, 1.0, 0.0]]
    """
    gray = image[0] if image.ndim == 3 else image
    return (gray <= threshold_otsu(gray)).astype(np.float32)


def membrane_maps(model: Any, data: SegmentationData) -> list[np.ndarray]:
    """Predict the membrane probability of every image.

    Parameters
    ----------
    model : UNet, a network of `unet_tutorial.partial`, or None
        A trained network; None stands for Otsu's threshold.
    data : SegmentationData
        The images, usually ``lesson.data.validation``.

    Returns
    -------
    list of numpy.ndarray
        (H, W), 0 to 1.

    Examples
    --------
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=2, size=64)
    membranes: ...
    >>> [float(m.max()) for m in membrane_maps(None, data)]
    [1.0, 1.0]
    """
    if model is None:
        return [otsu_membrane(image) for image in data.images]
    return [predict(model, image)[1] for image in data.images]


def measure(membrane: Sequence[np.ndarray], held_out: SegmentationData) -> dict[str, Any]:
    """Take all scores of the board.

    Parameters
    ----------
    membrane : sequence of numpy.ndarray
        Membrane probabilities (H, W), one for each image.
    held_out : SegmentationData
        Labels, and mitochondria where they are known.

    Returns
    -------
    dict
        The scores of `evaluate` by name; ``edge_distance`` and ``error_at_distance``, the
        upper limits (None: no limit) and the errors of `error_by_distance`; ``grid_error``;
        ``rim_error`` at probability 0.5, None where mitochondria are not labeled.

    Examples
    --------
    >>> from unet_tutorial.datasets import load
    >>> data = load("membranes", n_images=2, size=64)
    membranes: ...
    >>> measure([label.astype(float) for label in data.labels], data)["pixel_error"]
    0.0
    """
    claimed = [map_ > 0.5 for map_ in membrane]
    profile = error_by_distance(claimed, list(held_out.labels))
    rims = math.nan
    if held_out.mitochondria is not None:
        rims = rim_error(claimed, list(held_out.mitochondria))
    return {
        **evaluate(list(membrane), list(held_out.labels)).as_dict(),
        "edge_distance": [None if math.isinf(edge) else edge for edge in profile.edges[1:]],
        "error_at_distance": [None if math.isnan(e) else round(e, 5) for e in profile.error],
        "grid_error": grid_error(list(membrane), list(held_out.labels)),
        "rim_error": None if math.isnan(rims) else rims,
    }


def show_board(until: str, *, also: Sequence[str] = (), results: str = "board") -> None:
    """Print the stored scores, mean ± spread over the seeds, of the rungs built so far.

    Parameters
    ----------
    until : str
        The last rung to show.
    also : sequence of str
        Variants to add below.
    results : str
        File in ``book/results``.

    Raises
    ------
    ValueError
        If there is no such rung.

    Examples
    --------
    >>> show_board("three convolutions")
    isbi2012, 3 seeds ...
    """
    names = list(RUNGS)
    if until not in names:
        raise ValueError(f"there is no rung {until!r}; the rungs are {', '.join(names)}")
    rows = read_results(results)["rows"]
    for data_set in dict.fromkeys(row["dataset"] for row in rows):
        chosen = [row for row in rows if row["dataset"] == data_set]
        seeds = len({row["seed"] for row in chosen})
        print(_line(f"{data_set}, {seeds} seeds", COLUMNS.values()))
        for rung in [*names[: names.index(until) + 1], *also]:
            print(_line(rung, [_cell(chosen, rung, column) for column in COLUMNS]))


def beside_the_board(rung: str, scores: Scores, lesson: Lesson, *, results: str = "board") -> None:
    """Set a fresh result beside the stored one.

    Parameters
    ----------
    rung : str
        A name of `RUNGS` or `VARIANTS`.
    scores : Scores
        What `unet_tutorial.metrics.evaluate` has just found.
    lesson : Lesson
        With which data and profile; a profile that is not the board's is said below the numbers.
    results : str
        File in ``book/results``.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> lesson = setup("smoke", "membranes")
    membranes: ...
    >>> scores = Scores(0.1, 0.8, 0.7, 0.9, 0.95, 0.5)
    >>> beside_the_board("+ bottleneck", scores, lesson)
    + bottleneck ...
    this run, membranes ...
    """
    data_set, profile = lesson.data.name, lesson.profile.name
    stored = read_results(results)
    rows = [row for row in stored["rows"] if row["dataset"] == data_set]
    fresh = scores.as_dict()
    print(_line(rung, COLUMNS.values()))
    print(_line(f"this run, {data_set}", [f"{fresh[column]:.3f}" for column in COLUMNS]))
    if not rows:
        print(f"(nothing is stored for {data_set})")
        return
    print(_line("stored, mean ± spread", [_cell(rows, rung, column) for column in COLUMNS]))
    if profile != stored["settings"]["profile"]:
        print(f"(this run: profile {profile}; stored: profile {stored['settings']['profile']})")


def stored_values(
    value: str, data_set: str, *, results: str = "board", by: str = "rung"
) -> dict[str, float]:
    """Read the mean over seeds of one score for every rung of a data set.

    Parameters
    ----------
    value : str
        Name of the score, such as ``"rim_error"``.
    data_set : str
        ``"isbi2012"`` or ``"membranes"``.
    results : str
        File in ``book/results``.
    by : str
        Column that names the rows.

    Returns
    -------
    dict of str to float

    Examples
    --------
    >>> errors = stored_values("pixel_error", "membranes")
    >>> errors["+ skip connections"] < errors["contracting path"]
    True
    """
    rows = [row for row in read_results(results)["rows"] if row["dataset"] == data_set]
    averages = mean_and_spread(rows, [by], value)
    return {group[0]: mean for group, (mean, _) in averages.items()}


def stored_distance_curves(
    names: Sequence[str], data_set: str, *, results: str = "board"
) -> tuple[list[float], dict[str, list[float]]]:
    """Read the pixel error at growing distances from the nearest edge, averaged over seeds.

    Parameters
    ----------
    names : sequence of str
        Rungs or variants.
    data_set : str
        ``"isbi2012"`` or ``"membranes"``.
    results : str
        File in ``book/results``.

    Returns
    -------
    (list of float, dict of str to list of float)
        Upper limits of the distances in pixels, the last infinite; by rung, the errors.

    Examples
    --------
    >>> limits, curves = stored_distance_curves(["+ bottleneck"], "membranes")
    >>> len(limits) == len(curves["+ bottleneck"])
    True
    """
    rows = [row for row in read_results(results)["rows"] if row["dataset"] == data_set]
    limits = [math.inf if edge is None else float(edge) for edge in rows[0]["edge_distance"]]
    curves = {
        name: np.mean(
            [row["error_at_distance"] for row in rows if row["rung"] == name], axis=0
        ).tolist()
        for name in names
    }
    return limits, curves


def _cell(rows: Sequence[Mapping[str, Any]], rung: str, column: str) -> str:
    found = mean_and_spread([row for row in rows if row["rung"] == rung], ["rung"], column)
    if not found:
        return "not measured"
    mean, spread = found[(rung,)]
    return f"{mean:.3f} ± {spread:.3f}"


def _line(title: str, cells: Any) -> str:
    return f"{title:<24}" + "".join(f"{cell:>16}" for cell in cells).rstrip()


def score_whole_training(
    lesson: Lesson, steps: int, notes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Train by `ISBI_RECIPE` and score with and without averaging over flips and turns.

    Parameters
    ----------
    lesson : Lesson
        Data, width and seed.
    steps : int
        Budget.
    notes : mapping
        What both rows say besides, such as the name of the budget.

    Returns
    -------
    list of dict
        Two rows for `unet_tutorial.results.write_results`. On a GPU they say how much of the
        card's matrix rate the training used, 0 to 1.

    Examples
    --------
    >>> from unet_tutorial.lesson import setup
    >>> rows = score_whole_training(setup("smoke", "membranes"), 1, {"budget": "1 step"})
    membranes: ...
    profile smoke ...
    step    1/1 ...
    >>> [(row["budget"], row["averaged"]) for row in rows]
    [('1 step', False), ('1 step', True)]
    """
    recipe = ISBI_RECIPE | ({"crop_size": 64} if lesson.profile.name == "smoke" else {})
    on_gpu = lesson.device.type == "cuda"
    rate = matrix_rate(lesson.device, lesson.settings["precision"]) if on_gpu else 0.0
    result = lesson.train(lesson.build(), steps=steps, validate_every=0, **recipe)
    speed: dict[str, Any] = {
        "seconds": round(result.seconds, 1),
        "crops_per_second": round(result.crops_per_second, 1),
    }
    if on_gpu:
        flops = training_flops(result.model, (result.config.crop_size,) * 2)
        speed["share_of_matrix_rate"] = round(result.crops_per_second * flops / rate, 4)
    held_out, rows = lesson.data.validation, []
    for averaged in (False, True):
        maps = [
            predict(result.model, image, flips_and_turns=averaged)[1] for image in held_out.images
        ]
        scores = evaluate(maps, held_out.labels)
        rows.append(
            {
                "dataset": lesson.data.name,
                "seed": lesson.seed,
                **notes,
                "steps": steps,
                "averaged": averaged,
                "pixel_error": scores.pixel_error,
                "dice": scores.dice,
                "v_rand": scores.v_rand,
                "v_info": scores.v_info,
                **speed,
            }
        )
    return rows
