"""Random crops, turned, bent and of changed gray, made on the device that trains.

The paper (section 3.1) had thirty images and made more of them: *elastic deformations of the
training samples seem to be the key concept*. An image and its labels always move together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crops(
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    size: int,
    number: int,
    generator: torch.Generator,
    flips_and_turns: bool = True,
    elastic: float = 0.0,
    rotation: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cut square crops at random places, each mirrored, turned and bent at random.

    An image and its labels always move together. The eight ways to flip and turn a square are
    drawn alike; electron micrographs have no up or down. Bending and free turning look up each
    pixel of the crop where it comes from in the whole image, so nothing is lost at the crop's
    border; beyond the image's own border it is mirrored.

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
        Whether to flip, and to turn by quarters.
    elastic : float
        Standard deviation of the displacements in pixels, see `elastic_displacement`; 0 bends
        nothing. The paper has 10.
    rotation : bool
        Whether to turn by any angle.

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
        if elastic or rotation:
            angle = 2 * math.pi * float(torch.rand(1, generator=generator)) if rotation else 0.0
            places = _places(size, (top, left), angle, images[chosen].device)
            if elastic:
                bent = elastic_displacement(1, (size, size), std=elastic, generator=generator)
                places = places + bent[0].to(places)
            crop, mark = look_up(images[chosen], labels[chosen], places)
        else:
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


def elastic_displacement(
    number: int,
    size: tuple[int, int],
    *,
    std: float = 10.0,
    grid: int = 3,
    generator: torch.Generator,
) -> Tensor:
    """Draw smooth deformations: random displacements on a coarse grid, bicubic in between.

    "We generate smooth deformations using random displacement vectors on a coarse 3 by 3 grid. The
    displacements are sampled from a Gaussian distribution with 10 pixels standard deviation.
    Per-pixel displacements are then computed using bicubic interpolation" (paper, section 3.1).
    The paper's grid spans a tile of 572 pixels; the same 10 pixels bend a smaller crop more.

    Parameters
    ----------
    number : int
        Deformations in the batch.
    size : (int, int)
        Height and width in pixels.
    std : float
        Standard deviation of the displacements in pixels, in each direction.
    grid : int
        Displacements along each side; the outermost lie on the corners.
    generator : torch.Generator
        Source of chance, on the CPU.

    Returns
    -------
    Tensor
        (number, 2, H, W): how many pixels further down, and to the right, a pixel comes from.

    Raises
    ------
    ValueError
        If the grid has fewer than two points a side, or the deviation is negative.

    Examples
    --------
    >>> import torch
    >>> chance = torch.Generator().manual_seed(0)
    >>> elastic_displacement(1, (64, 96), generator=chance).shape
    torch.Size([1, 2, 64, 96])
    """
    if grid < 2 or not std >= 0:
        raise ValueError(
            f"expected a grid of 2 or more points a side and a deviation of 0 or more pixels, got "
            f"grid={grid}, std={std}: the paper has 3 and 10"
        )
    coarse = std * torch.randn(number, 2, grid, grid, generator=generator)
    return interpolate_displacement(coarse, size)


def interpolate_displacement(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """Spread displacements of a coarse grid over all pixels, bicubic in between.

    "Per-pixel displacements are then computed using bicubic interpolation" (paper, section 3.1).

    Parameters
    ----------
    coarse : Tensor
        (N, 2, h, w) in pixels, down and to the right; the outermost lie on the corners.
    size : (int, int)
        Height and width in pixels.

    Returns
    -------
    Tensor
        (N, 2, H, W), as `elastic_displacement` draws it.

    Examples
    --------
    >>> import torch
    >>> coarse = torch.zeros(1, 2, 3, 3)
    >>> coarse[0, 0, 1, 1] = 8  # the middle comes from 8 pixels further down
    >>> interpolate_displacement(coarse, (5, 5))[0, 0, 2]
    tensor([0.0000, 4.7500, 8.0000, 4.7500, 0.0000])
    """
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def deform(images: Tensor, labels: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Bend a batch of images and their labels alike, mirroring them beyond their borders.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W).
    labels : Tensor
        (N, H, W), class indices.
    displacement : Tensor
        (N, 2, H, W), as `elastic_displacement` draws it.

    Returns
    -------
    Tensor, Tensor
        Bent images, interpolated linearly between pixels, and labels, each taken from the nearest
        pixel, since there is no class between two classes.

    Examples
    --------
    >>> import torch
    >>> image, labels = torch.rand(1, 1, 64, 64), torch.randint(2, (1, 64, 64))
    >>> right = torch.zeros(1, 2, 64, 64)
    >>> right[:, 1] = 1  # every pixel comes from its neighbor on the right
    >>> bent, marks = deform(image, labels, right)
    >>> bool((marks[:, :, :-1] == labels[:, :, 1:]).all())
    True
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device, dtype=torch.float32)
    columns = torch.arange(width, device=images.device, dtype=torch.float32)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")) + displacement
    return _look_up(images, labels, places)


def look_up(image: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Read an image and its labels at any places, between pixels and beyond the border too.

    Parameters
    ----------
    image : Tensor
        (C, H, W).
    labels : Tensor
        (H, W), class indices.
    places : Tensor
        (2, h, w): row and column, in pixels, that each pixel of the result is read at.

    Returns
    -------
    Tensor, Tensor
        (C, h, w) and (h, w); as in `deform`.

    Examples
    --------
    >>> import torch
    >>> image = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> values, _ = look_up(image, image[0].long(), torch.tensor([[[0.5]], [[0.5]]]))
    >>> values
    tensor([[[1.5000]]])
    """
    values, marks = _look_up(image[None], labels[None], places[None])
    return values[0], marks[0]


def change_gray(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast of each image at random, about its mean.

    The paper (section 3.1) asks for robustness to "gray value variations" and gives no recipe.
    This one is ours: contrast times 1 ± strength, brightness ± strength / 2, both uniform.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W), about 0 to 1.
    strength : float
        0 to 1.
    generator : torch.Generator
        Source of chance, on the CPU.

    Returns
    -------
    Tensor
        (N, C, H, W); values may lie a little outside of 0 to 1.

    Examples
    --------
    >>> import torch
    >>> flat = torch.full((2, 1, 8, 8), 0.5)
    >>> changed = change_gray(flat, 0.2, torch.Generator().manual_seed(0))
    >>> bool(((changed - 0.5).abs() <= 0.1).all())
    True
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of gray changes goes from 0 to 1, got {strength}")
    drawn = 2 * torch.rand(2, len(images), 1, 1, 1, generator=generator) - 1
    contrast, brightness = (strength * drawn).to(images)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast) + brightness / 2


def _places(size: int, corner: tuple[int, int], angle: float, device: torch.device) -> Tensor:
    """Return row and column of each pixel of a square crop, turned about its middle: (2, s, s)."""
    middle = (size - 1) / 2
    along = torch.arange(size, device=device, dtype=torch.float32) - middle
    down, right = torch.meshgrid(along, along, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack(
        (
            corner[0] + middle + cos * down - sin * right,
            corner[1] + middle + sin * down + cos * right,
        )
    )


def _look_up(images: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    height, width = images.shape[-2:]
    # PyTorch counts places from -1 to 1, columns first; a side of one pixel has no length.
    ends = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=places.device)
    grid = 2 * places.flip(1).movedim(1, -1) / ends - 1  # (N, h, w, 2)
    values = F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    marks = F.grid_sample(
        labels[:, None].to(images.dtype),  # whole numbers below 2^24 are exact
        grid,
        mode="nearest",
        padding_mode="reflection",
        align_corners=True,
    )
    return values, marks[:, 0].to(labels.dtype)
