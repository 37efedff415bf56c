"""Plausible wrong answers to the exercises of chapter 4, and what must be said about each.

`RIGHT` has answers in another form than the chapter's solution, which must pass as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unet_tutorial.runs import palette_image

State = dict[str, Tensor]

# 4.1: (output, bottleneck, input of the last double convolution) of UNet(3, 5, base 32, depth 3).
OUTPUT, BOTTLENECK, LAST = (5, 200, 264), (256, 25, 33), (64, 200, 264)


def cropped_skip(up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((up, skip[..., : up.shape[2], : up.shape[3]]), dim=1)


def resized(up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((F.interpolate(up, skip.shape[2:], mode="bilinear"), skip), dim=1)


def padded_above(up: Tensor, skip: Tensor) -> Tensor:
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    return torch.cat((F.pad(up, (columns, 0, rows, 0)), skip), dim=1)


def rows_and_columns_exchanged(up: Tensor, skip: Tensor) -> Tensor:
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    return torch.cat((F.pad(up, (0, rows, 0, columns)), skip), dim=1)


def always_one_more(up: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((F.pad(up, (0, 1, 0, 1)), skip), dim=1)


def shared_by_both_sides(up: Tensor, skip: Tensor) -> Tensor:
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    left, top = columns // 2, rows // 2  # -1 // 2 is -1: what is too much goes above
    return torch.cat((F.pad(up, (left, columns - left, top, rows - top)), skip), dim=1)


def skip_first(up: Tensor, skip: Tensor) -> Tensor:
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    return torch.cat((skip, F.pad(up, (0, columns, 0, rows))), dim=1)


def added(up: Tensor, skip: Tensor) -> Tensor:
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    return F.pad(up, (0, columns, 0, rows)) + skip


def not_concatenated(up: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
    return F.pad(up, (0, columns, 0, rows)), skip


def _exchange(state: State, which: tuple[str, ...], axis: int = 1) -> State:
    ours = dict(state)
    for name in which:
        first, second = state[name].chunk(2, dim=axis)
        ours[name] = torch.cat((second, first), dim=axis)
    return ours


def _joints(state: State) -> tuple[str, ...]:
    return tuple(n for n in state if n.startswith("exp") and n.endswith("block.0.weight"))


def as_it_is(state: State) -> State:
    return dict(state)


def only_the_first(state: State) -> State:
    return _exchange(state, _joints(state)[:1])


def the_outputs_in_place_of_the_inputs(state: State) -> State:
    return _exchange(state, _joints(state), axis=0)


def all_channels_reversed(state: State) -> State:
    return {**state, **{name: state[name].flip(1) for name in _joints(state)}}


def every_convolution(state: State) -> State:
    even = (n for n, w in state.items() if w.ndim == 4 and w.shape[1] % 2 == 0)
    return _exchange(state, tuple(even))


def only_what_changes(state: State) -> State:
    ours = _exchange(state, _joints(state))
    return {name: ours[name] for name in _joints(state)}


def in_place(state: State) -> State:
    for name, weight in _exchange(state, _joints(state)).items():
        state[name].copy_(weight.clone())
    return state


def _index(logits: Tensor) -> np.ndarray:
    return logits[0].argmax(dim=0).numpy().astype(np.uint8)


def black(logits: Tensor, path: Any) -> None:
    Image.fromarray(_index(logits)).save(path)


def stretched(logits: Tensor, path: Any) -> None:
    Image.fromarray(127 * _index(logits)).save(path)


def colors_only(logits: Tensor, path: Any) -> None:
    palette = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    Image.fromarray(palette[_index(logits)]).save(path)


def first_channel(logits: Tensor, path: Any) -> None:
    Image.fromarray((255 * logits.softmax(dim=1)[0, 0]).byte().numpy()).save(path)


def along_the_rows(logits: Tensor, path: Any) -> None:
    Image.fromarray(logits[0].argmax(dim=1).byte().numpy()).save(path)


def on_its_side(logits: Tensor, path: Any) -> None:
    Image.fromarray(_index(logits).T.copy()).save(path)


def dark_palette(logits: Tensor, path: Any) -> None:
    picture = Image.fromarray(_index(logits))
    picture.putpalette([0, 0, 0, 1, 0, 0, 2, 0, 0])
    picture.save(path)


def shown_and_not_saved(logits: Tensor, path: Any) -> Image.Image:
    return Image.fromarray(_index(logits))


WRONG: dict[str, list[tuple[Any, str]]] = {
    "4.1": [
        (((3, 200, 264), BOTTLENECK, LAST), "3 are the channels of the image"),
        (((1, 5, 200, 264), BOTTLENECK, LAST), "Leave the batch out"),
        ((OUTPUT, (256, 33, 25), LAST), "height (33) and width (25) are not"),
        ((OUTPUT, (512, 12, 16), LAST), "a network of depth 4"),
        ((OUTPUT, (128, 25, 33), LAST), "channels of the level above"),
        ((OUTPUT, BOTTLENECK, (32, 200, 264)), "one of two maps that meet"),
        ((OUTPUT, BOTTLENECK), "3 parts, and you gave 2"),
    ],
    "4.2": [
        (cropped_skip, "expected shape 2×8×39×39, got 2×8×38×38"),
        (resized, "as if it had been resized"),
        (padded_above, "has moved down and to the right"),
        (rows_and_columns_exchanged, "up 2×3×38×64 and skip 2×5×39×64 stopped with RuntimeError"),
        (always_one_more, "up 2×3×40×40 and skip 2×5×39×39 stopped with RuntimeError"),
        (shared_by_both_sides, "has moved up or to the left"),
        (skip_first, "the first 5 channels are the skip"),
        (added, "stopped with RuntimeError"),
        (not_concatenated, "a torch tensor is expected"),
        (torch.zeros(1), "you gave a tensor"),
    ],
    "4.3": [
        (as_it_is, "are as they were"),
        (only_the_first, "2 of 3 layers that take concatenated maps are unchanged"),
        (the_outputs_in_place_of_the_inputs, "but not in the right way"),
        (all_channels_reversed, "but not in the right way"),
        (every_convolution, "it takes no concatenated maps"),
        (only_what_changes, "is missing"),
        (in_place, "has changed her own tensor"),
    ],
    "4.4": [
        (black, "class 1 as (1, 1, 1)"),
        (stretched, "The file holds 0, 127, 254"),
        (colors_only, "3 numbers for each pixel"),
        (first_channel, "is right at"),
        (along_the_rows, "got 3 rows"),
        (on_its_side, "got 31 rows and 20 columns"),
        (dark_palette, "nobody can see them"),
        (shown_and_not_saved, "no file at the path"),
    ],
}


def meet_by_mirroring(up: Tensor, skip: Tensor) -> Tensor:
    up = F.pad(up, (0, 1, 0, 1), mode="reflect")[..., : skip.shape[2], : skip.shape[3]]
    return torch.cat([up, skip], 1)


def meet_on_a_canvas(up: Tensor, skip: Tensor) -> Tensor:
    joined = torch.zeros(len(up), up.shape[1] + skip.shape[1], *skip.shape[2:])
    joined[:, up.shape[1] :] = skip
    rows, columns = min(up.shape[2], skip.shape[2]), min(up.shape[3], skip.shape[3])
    joined[:, : up.shape[1], :rows, :columns] = up[..., :rows, :columns]
    return joined


def translate_by_rolling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    joints = [n for n, w in state.items() if "expansive" in n and "block.0.w" in n and w.ndim == 4]
    return {
        name: weight.roll(weight.shape[1] // 2, dims=1) if name in joints else weight.clone()
        for name, weight in state.items()
    }


def save_as_the_package_does(logits: Tensor, path: Any) -> None:
    palette_image(logits.softmax(1).argmax(1)[0].byte().numpy(), 3).save(path)


def save_and_hand_back(logits: Tensor, path: Any) -> Image.Image:
    picture = Image.fromarray(logits[0].argmax(0).byte().numpy(), mode="P")
    picture.putpalette([255, 255, 255, 200, 0, 0, 0, 0, 200])
    picture.save(str(path))
    return picture


RIGHT: dict[str, list[Any]] = {
    "4.1": [[[5, 200, 264], torch.Size((256, 25, 33)), (64, 200, 264)]],
    "4.2": [meet_by_mirroring, meet_on_a_canvas],
    "4.3": [translate_by_rolling],
    "4.4": [save_as_the_package_does, save_and_hand_back],
}
