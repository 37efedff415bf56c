"""Exercises of chapters 4 to 7: there is more than one way to be right."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unet_tutorial import UNet
from unet_tutorial.augmentation import deform
from unet_tutorial.exercises import check
from unet_tutorial.exercises._chapter5 import _tiles_along
from unet_tutorial.export import fold_batch_norm
from unet_tutorial.inference import tile_plan
from unet_tutorial.losses import border_weight_map
from unet_tutorial.runs import palette_image


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


def border_weight(d1: Any, d2: Any) -> Any:
    return 10.0 * np.exp(-0.5 * np.square((d1 + d2) / 5))


def count_tiles_in_a_loop(height: int, width: int) -> float:
    def along(length: int) -> int:
        number, answered = 1, 388
        while answered < length:
            number, answered = number + 1, answered + 384
        return number

    return float(along(height) * along(width))


def bend_by_torch(image: Any, labels: Any, rows: Any, columns: Any) -> list[np.ndarray]:
    own = np.mgrid[: image.shape[0], : image.shape[1]]
    away = torch.from_numpy(np.stack((rows, columns)) - own)[None].float()
    pictures = torch.from_numpy(image)[None, None].float(), torch.from_numpy(labels)[None]
    bent, marks = deform(*pictures, away)
    return [bent[0, 0].numpy(), marks[0].numpy()]


def accumulate_sums(model: Any, images: Tensor, labels: Tensor, at_once: int) -> None:
    for weights in model.parameters():
        weights.grad = None
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        loss = F.cross_entropy(model(images[part]), labels[part], reduction="sum")
        (loss / labels.numel()).backward()


def step_that_forgets_at_the_end(model: Any, optimizer: Any, images: Tensor, masks: Tensor) -> Any:
    loss = F.cross_entropy(model(images), masks.long() // 255)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def step_in_probabilities(model: Any, optimizer: Any, images: Tensor, masks: Tensor) -> Any:
    optimizer.zero_grad(set_to_none=False)
    loss = F.nll_loss(model(images).log_softmax(dim=1), (masks / 255).long())
    loss.backward()
    optimizer.step()
    return loss.detach()


def fold_into_a_new_layer(convolution: nn.Conv2d, normalization: nn.BatchNorm2d) -> nn.Conv2d:
    folded = nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        zero = torch.zeros(1, 4, 1, 1) if convolution.bias is None else convolution.bias
        shift = normalization(zero.reshape(1, 4, 1, 1)).flatten()
        scale = normalization(torch.ones(1, 4, 1, 1)) - normalization(torch.zeros(1, 4, 1, 1))
        folded.weight.copy_(convolution.weight * scale.reshape(4, 1, 1, 1))
        folded.bias.copy_(shift)
    return folded


def answer_with_numpy(network: Any, image: Tensor) -> Tensor:
    lacking = [-length % 16 for length in image.shape[1:]]
    sides = [(0, 0), *((one // 2, one - one // 2) for one in lacking)]
    mirrored = torch.from_numpy(np.pad(image.numpy(), sides, mode="reflect"))
    with torch.no_grad():
        chances = network(mirrored[None]).softmax(dim=1)[0]
    top, left = lacking[0] // 2, lacking[1] // 2
    return chances[:, top:, left:][:, : image.shape[1], : image.shape[2]]


def indices_by_lookup(picture: Any, colors: Any) -> Any:
    numbers = {tuple(color): number for number, color in enumerate(colors)}
    try:
        flat = [numbers[tuple(pixel)] for pixel in picture.reshape(-1, 3).tolist()]
    except KeyError as error:
        raise ValueError(f"no color of the list: {error}") from None
    return np.array(flat, np.uint8).reshape(picture.shape[:2])


RIGHT = [
    ("4.1", [[5, 200, 264], torch.Size((256, 25, 33)), (64, 200, 264)]),
    ("4.2", meet_by_mirroring),
    ("4.2", meet_on_a_canvas),
    ("4.3", translate_by_rolling),
    ("4.4", save_as_the_package_does),
    ("4.4", save_and_hand_back),
    ("5.1", border_weight),
    ("5.2", count_tiles_in_a_loop),
    ("5.3", bend_by_torch),
    ("6.1", [3 / 4, 4.0]),
    ("6.2", accumulate_sums),
    ("6.3", 64.0),
    ("6.4", step_that_forgets_at_the_end),
    ("6.4", step_in_probabilities),
    ("7.1", [[240, 256], [5, 250, 250], 85.0]),
    ("7.2", fold_into_a_new_layer),
    ("7.3", answer_with_numpy),
    ("7.4", indices_by_lookup),
]


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=[number for number, _ in RIGHT])
def test_another_way_to_the_right_answer_is_right(
    number: str, answer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = check(number, answer)
    assert verdict, capsys.readouterr().out


# ---- what the verifiers and the solutions take for granted


def test_5_2_tiles_are_counted_as_tile_plan_counts_them() -> None:
    with torch.device("meta"):
        paper = UNet(1, 2, base_channels=1, padding="valid")
    for length in (
        1,
        4,
        5,
        16,
        387,
        388,
        389,
        512,
        572,
        700,
        772,
        773,
        776,
        1000,
        1156,
        1157,
        4096,
    ):
        assert len(tile_plan(paper, (length, 1), 572)) == _tiles_along(length), length


def test_5_1_is_the_term_of_the_weight_map() -> None:
    row = np.array([[1, 1, 0, 0, 0, 2, 2]])
    assert np.allclose(
        border_weight_map(row)[0, 2:5], border_weight(*np.array([[1, 2, 1], [3, 2, 3]]))
    )


def test_6_4_the_loss_of_probabilities_never_falls_below_0_313() -> None:
    sure = torch.tensor([[-1000.0, 1000.0]]).softmax(dim=1)
    least = F.cross_entropy(sure, torch.tensor([1])).item()
    assert f"{least:.3f}" == f"{math.log(1 + math.exp(-1)):.3f}" == "0.313"


def test_4_2_pooling_rounds_down_or_up() -> None:
    assert F.max_pool2d(torch.zeros(1, 1, 39, 39), 2).shape[-1] * 2 == 38
    assert F.max_pool2d(torch.zeros(1, 1, 39, 39), 2, ceil_mode=True).shape[-1] * 2 == 40


def test_4_3_her_weights_load_as_they_are_and_answer_otherwise() -> None:
    torch.manual_seed(0)
    hers, ours = (UNet(1, 2, base_channels=4, depth=2).eval() for _ in range(2))
    state = translate_by_rolling(copy.deepcopy(hers.state_dict()))
    assert not ours.load_state_dict(state).missing_keys
    image = torch.rand(1, 1, 16, 16)
    assert not torch.allclose(ours(image), hers(image), atol=1e-4)


def test_7_2_by_hand_and_by_the_package_are_one_layer() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=4, depth=1, norm="batch").eval()
    convolution, normalization = model.contracting[0].conv.conv_block[3:5]
    nn.init.uniform_(normalization.running_mean)
    nn.init.uniform_(normalization.running_var)
    theirs = fold_batch_norm(model).contracting[0].conv.conv_block[2]
    ours = fold_into_a_new_layer(convolution, normalization)
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)
