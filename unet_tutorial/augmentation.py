"""Crops, flips and quarter turns, drawn and made on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_crops(
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    size: int,
    number: int,
    generator: torch.Generator,
    flips_and_turns: bool = True,
) -> tuple[Tensor, Tensor]:
    """Cut square crops at random places, each mirrored and turned at random.

    An image and its labels always move together. The eight ways to flip and turn a square are
    drawn alike; electron micrographs have no up or down.

    Parameters
    ----------
    images : sequence of Tensor
        Each (C, H, W), on the device that trains; H and W may differ between images.
    labels : sequence of Tensor
        Each (H, W), class indices, on the same device.
    size : int
        Side of the crops in pixels; no image may be smaller.
    number : int
        Crops in the batch. Every image is equally likely.
    generator : torch.Generator
        Source of chance, on the CPU, so that a seed draws the same crops on every device.
    flips_and_turns : bool
        Whether to flip and turn.

    Returns
    -------
    Tensor, Tensor
        Crops (number, C, size, size) and their labels (number, size, size).

    Raises
    ------
    ValueError
        If an image is smaller than the crop.

    Examples
    --------
    >>> import torch
    >>> image = torch.rand(1, 64, 64)
    >>> crops, marks = random_crops(
    ...     [image], [image[0] > 0.5], size=32, number=4,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> crops.shape, bool((marks == (crops[:, 0] > 0.5)).all())
    (torch.Size([4, 1, 32, 32]), True)
    """
    for image in images:
        if min(image.shape[-2:]) < size:
            raise ValueError(
                f"an image of {image.shape[-2]}×{image.shape[-1]} pixels is smaller than the crop "
                f"of {size}×{size}: choose a smaller crop_size or larger images"
            )

    def draw(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    crops, marks = [], []
    for _ in range(number):
        chosen = draw(len(images))
        height, width = images[chosen].shape[-2:]
        top, left = draw(height - size + 1), draw(width - size + 1)
        crop = images[chosen][:, top : top + size, left : left + size]
        mark = labels[chosen][top : top + size, left : left + size]
        if flips_and_turns:
            turns, flip = draw(4), draw(2)
            crop, mark = crop.rot90(turns, (-2, -1)), mark.rot90(turns, (-2, -1))
            if flip:
                crop, mark = crop.flip(-1), mark.flip(-1)
        crops.append(crop)
        marks.append(mark)
    return torch.stack(crops), torch.stack(marks)
