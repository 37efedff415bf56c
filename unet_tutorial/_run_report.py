"""The page that shows how good a run is: one file, no script, nothing from another host."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from unet_tutorial._pictures import data_url
from unet_tutorial.datasets import SegmentationData
from unet_tutorial.plots import CONFUSED, INVENTED, MISSED, error_overlay

if TYPE_CHECKING:
    from unet_tutorial.runs import Score

WORST = 4
INK = "#010203"  # stands for the theme's own color of text until the drawing is on the page
LOSS, SCORE = "#7a8fd0", "#d1660f"

STYLE = f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #23272e; --line: #c9ced6;
  --soft: #5b6470 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #15181d; --ink: #e6e9ee; --line: #3b424d; --soft: #a5aebb }}
}}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }}
main {{ max-width: 60rem; margin: 0 auto; padding: 1rem }}
h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.2rem; margin-top: 2rem }}
.soft {{ color: var(--soft) }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
caption {{ text-align: left; color: var(--soft); padding-bottom: .4rem }}
th, td {{ padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line) }}
th:first-child, td:first-child {{ text-align: left; overflow-wrap: anywhere }}
svg, img {{ max-width: 100%; height: auto }}
figure {{ margin: 1rem 0 }}
.four {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem }}
.four img {{ width: 100%; image-rendering: pixelated; border: 1px solid var(--line) }}
.key {{ display: inline-block; width: .9em; height: .9em; vertical-align: -.1em }}
.missed {{ background: {MISSED} }} .invented {{ background: {INVENTED} }}
.confused {{ background: {CONFUSED} }}
"""


def write_report(
    path: Path,
    about: dict[str, Any],
    held_out: SegmentationData,
    guesses: Sequence[np.ndarray],
    scores: Sequence[Score],
) -> None:
    """Write the report of a run.

    Parameters
    ----------
    path : Path
        File to write.
    about : dict
        The content of ``run.json``.
    held_out : SegmentationData
        Images that were not trained on; may be none.
    guesses : sequence of ndarray
        Class indices (H, W) that the network gave them.
    scores : sequence of Score
        One for each.
    """
    name = html.escape(about["name"])
    parts = [f"<h1>{name}: how good is this network?</h1>", _lead(about), _curves(about)]
    if scores:
        order = sorted(range(len(scores)), key=lambda index: scores[index].mean_dice)
        parts += [
            _worst(held_out, guesses, [(index, scores[index]) for index in order[:WORST]]),
            _table(about, [scores[index] for index in order]),
        ]
    parts.append(_settings(about))
    body = "\n".join(parts)
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{name}: report</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n",
        encoding="utf-8",
    )


def _lead(about: dict[str, Any]) -> str:
    classes = ", ".join(about["classes"])
    lines = [
        f"{about['data']['images']} images, {len(about['data']['held_out'])} of them held out; "
        f"classes {classes}; {'; '.join(about['data']['rules'])}."
    ]
    scores = about["scores"]
    if scores:
        told = ", ".join(f"{name} {value:.3f}" for name, value in scores["dice"].items())
        lines.append(
            f"On the held-out images, all pixels together: Dice {told}; its mean over images "
            f"is {scores['mean_dice']:.3f}; "
            f"{scores['pixel_error']:.2%} of the pixels have the wrong class."
        )
    else:
        lines.append("No image was held out, so nothing is known about images it has not seen.")
    if about["status"] == "interrupted":
        lines.append(
            f"The training was stopped after {about['steps_done']} of "
            f"{about['training']['steps']} steps."
        )
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _curves(about: dict[str, Any]) -> str:
    losses, taken = about["curves"]["loss"], about["curves"]["validation"]
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    look: dict[Any, Any] = {
        **dict.fromkeys(inks, INK),
        "svg.fonttype": "none",
        "svg.hashsalt": "run",
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(8.0, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        window = min(15, max(1, len(losses)))
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        left.plot(np.arange(len(smooth)) + window, smooth, color=LOSS)
        left.set(xlabel="step", ylabel="training loss")
        if taken:
            values = [one["dice"] for one in taken]
            right.plot([one["step"] for one in taken], values, marker="o", color=SCORE)
            right.set(xlabel="step", ylabel=f"held-out Dice, {about['classes'][1]}")
            right.set_ylim(min(0.5, *values) if len(values) > 1 else 0, 1)
        else:
            right.set_axis_off()
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    drawing = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    # Text and axes take the color of the page, the paper shows through.
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    drawing = re.sub(r"fill: #ffffff", "fill: none", drawing)
    said = f"Training loss over {len(losses)} steps, at the end {smooth[-1]:.3f}"
    if taken:
        said += f"; held-out Dice of {about['classes'][1]} at the end {taken[-1]['dice']:.3f}"
    drawing = drawing.replace("<svg", f'<svg role="img" aria-label="{html.escape(said)}"', 1)
    return f"<h2>Training</h2><figure>{drawing}</figure>"


def _worst(
    held_out: SegmentationData,
    guesses: Sequence[np.ndarray],
    chosen: Sequence[tuple[int, Score]],
) -> str:
    from unet_tutorial.runs import overlay, visible

    parts = [
        "<h2>The worst of the held-out images</h2>",
        '<p><span class="key missed"></span> missed, <span class="key invented"></span> invented'
        + (
            ', <span class="key confused"></span> one class taken for another'
            if held_out.num_classes > 2
            else ""
        )
        + ". Look here for what to mend: a mask that is wrong, or images of a kind that the "
        "training has too few of.</p>",
    ]
    for index, score in chosen:
        image, truth, guess = held_out.images[index], held_out.labels[index], guesses[index]
        missed, invented = np.mean((truth > 0) & (guess == 0)), np.mean((truth == 0) & (guess > 0))
        gray = visible(image).mean(axis=-1)
        pictures = {
            "image": overlay(image, np.zeros_like(truth)),
            "mask": overlay(image, truth),
            "network": overlay(image, guess),
            "errors": np.round(255 * error_overlay(gray, guess, truth)).astype(np.uint8),
        }
        cells = "".join(
            f'<div><img src="{_png(picture)}" alt="{html.escape(_alt(what, score))}">'
            f'<div class="soft">{what}</div></div>'
            for what, picture in pictures.items()
        )
        caption = html.escape(
            f"{score.name}: Dice {score.mean_dice:.3f}; {missed:.1%} of the pixels missed, "
            f"{invented:.1%} invented"
        )
        parts.append(
            f'<figure><div class="four">{cells}</div><figcaption>{caption}</figcaption></figure>'
        )
    return "\n".join(parts)


def _alt(what: str, score: Score) -> str:
    return {
        "image": f"Image {score.name}",
        "mask": f"Its mask, as it was given, over image {score.name}",
        "network": f"What the network found in image {score.name}, Dice {score.mean_dice:.3f}",
        "errors": f"Wrong pixels of image {score.name}: missed orange, invented blue",
    }[what]


def _png(picture: np.ndarray) -> str:
    """Inline a picture; large ones smaller, so that the page stays light."""
    return data_url(picture, side=512)


def _table(about: dict[str, Any], scores: Sequence[Score]) -> str:
    classes = [name for name in about["classes"][1:] if any(name in one.dice for one in scores)]
    head = "".join(f'<th scope="col">Dice {html.escape(name)}</th>' for name in classes)
    rows = []
    for score in scores:
        cells = "".join(
            f"<td>{score.dice[name]:.3f}</td>" if name in score.dice else "<td>–</td>"
            for name in classes
        )
        rows.append(
            f"<tr><td>{html.escape(score.name)}</td>{cells}<td>{score.pixel_error:.2%}</td></tr>"
        )
    return (
        '<h2>Every held-out image</h2><div class="wide"><table><caption>Worst first; – where a '
        "class is neither there nor was found.</caption>"
        f'<thead><tr><th scope="col">image</th>{head}<th scope="col">wrong pixels</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _settings(about: dict[str, Any]) -> str:
    options, training, machine = about["network"]["options"], about["training"], about["machine"]
    processes = machine.get("processes", 1)  # older runs do not say it
    rows = {
        "network": f"U-Net, {options['base_channels']} base channels, depth {options['depth']}",
        "training": f"{about['steps_done']} steps of {training['batch_size']} crops of "
        f"{training['crop_size']}×{training['crop_size']}, {training['loss']}, seed "
        f"{training['seed']}",
        "time": f"{about['seconds']:.0f} s of steps, {about['precision']}",
        "machine": f"{machine['device']}, {machine['processor']}, {machine['cores']} cores"
        + (f", {processes} processes" if processes > 1 else ""),
        "versions": f"unet-tutorial {about['version']}, torch {machine['torch']}",
    }
    cells = "".join(
        f'<tr><th scope="row">{name}</th><td style="text-align: left">{html.escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f'<h2>How it was made</h2><div class="wide"><table><tbody>{cells}</tbody></table></div>'
