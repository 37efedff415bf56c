"""What the training makes small, and how much each pixel of it counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy import ndimage
from torch import Tensor


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    weight_map: Tensor | None = None,
) -> Tensor:
    """Pixel-wise softmax and cross-entropy: a classifier's loss, averaged over the pixels.

    With weights it is the paper's (section 3, equation 1), but for a factor: the paper sums over
    the pixels, here the sum is divided by that of the weights, so that the loss, and the learning
    rate that suits it, stay what they are when all weights grow.

    Parameters
    ----------
    logits : Tensor
        (N, num_classes, H, W), any real values.
    labels : Tensor
        (N, H, W), class indices.
    class_weights : Tensor, optional
        (num_classes,), above 0: what a pixel of each class counts. See `balanced_class_weights`.
    weight_map : Tensor, optional
        (N, H, W), 0 or more: what each pixel counts besides; the two are added, as in the paper:
        w(x) = w_c(x) + the map, with w_c = 1 if there are no class weights.

    Returns
    -------
    Tensor
        One number, at least 0.

    Examples
    --------
    >>> import torch
    >>> undecided = torch.zeros(1, 2, 8, 8)
    >>> round(cross_entropy(undecided, torch.zeros(1, 8, 8, dtype=torch.long)).item(), 4)
    0.6931
    """
    if class_weights is None and weight_map is None:
        return F.cross_entropy(logits.float(), labels)
    surprise = F.cross_entropy(logits.float(), labels, reduction="none")  # (N, H, W)
    weights = torch.ones_like(surprise) if class_weights is None else class_weights[labels]
    if weight_map is not None:
        weights = weights + weight_map
    return (weights * surprise).sum() / weights.sum()


def balanced_class_weights(labels: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
    """Return weights that let all classes count alike, however many pixels they have.

    Parameters
    ----------
    labels : sequence of numpy.ndarray
        (H, W) each, class indices.
    num_classes : int
        Number of classes.

    Returns
    -------
    numpy.ndarray
        (num_classes,) float32, inverse to the share of the pixels; the mean weight of a pixel is
        1. A class without pixels gets 1. (The w_c of the paper's section 3, which gives no
        formula for it.)

    Examples
    --------
    >>> balanced_class_weights([np.array([[0, 0, 0, 1]])], 2)
    array([0.6666667, 2.       ], dtype=float32)
    """
    counts = sum(np.bincount(mask.ravel(), minlength=num_classes) for mask in labels)
    counts = np.asarray(counts, float)
    there = counts > 0
    weights = np.ones(num_classes, np.float32)
    weights[there] = counts.sum() / (there.sum() * counts[there])
    return weights


def border_weight_map(instances: ArrayLike, *, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """Weigh the background between cells that lie close together (paper, section 3, equation 2).

    ``w0 · exp(-(d1 + d2)² / 2σ²)``, with d1 and d2 the distances to the nearest and to the
    second-nearest cell: large where two cells nearly touch. The paper's class weights w_c come on
    top, in `cross_entropy`. Inside a cell the map is 0: what it is for is "the small separation
    borders that we introduce between touching cells".

    Parameters
    ----------
    instances : array_like of int
        (H, W): 0 is background, and each cell has a number of its own.
    w0 : float
        Weight of background with no distance to two cells, 0 or more; 10 in the paper.
    sigma : float
        Width in pixels, above 0; about 5 in the paper.

    Returns
    -------
    numpy.ndarray
        (H, W) float32, 0 to ``w0``. Distances are counted from pixel to pixel, so the background
        pixel in a gap of one pixel has d1 = d2 = 1. Values below a millionth of ``w0`` are 0.

    Raises
    ------
    ValueError
        If the map is not (H, W) of whole numbers, or a parameter is out of range.

    Examples
    --------
    >>> border_weight_map([[1, 1, 0, 2, 2, 0, 0, 0]]).round().astype(int)
    array([[0, 0, 9, 0, 0, 6, 4, 2]])
    """
    cells = np.asarray(instances)
    if cells.ndim != 2 or cells.dtype.kind not in "iu":
        raise ValueError(
            f"expected cell numbers, (H, W) whole numbers with 0 for background, got "
            f"{cells.dtype} of shape {cells.shape}; skimage.measure.label makes them of a mask"
        )
    if cells.size and cells.min() < 0:
        raise ValueError("cell numbers must not be negative: 0 is background, cells count from 1")
    if not w0 >= 0 or not sigma > 0:
        raise ValueError(f"expected w0 of 0 or more and sigma above 0, got w0={w0}, sigma={sigma}")
    # Two cells that are further away than this leave less than a millionth.
    reach = math.ceil(sigma * math.sqrt(2 * math.log(1e6)))
    nearest = np.full(cells.shape, np.inf, np.float32)
    second = nearest.copy()
    for number, box in enumerate(ndimage.find_objects(cells), start=1):
        if box is None:
            continue
        around = tuple(
            slice(max(side.start - reach, 0), min(side.stop + reach, length))
            for side, length in zip(box, cells.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(cells[around] != number).astype(np.float32)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    weights = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    weights[(cells != 0) | (weights < 1e-6 * w0)] = 0
    return weights.astype(np.float32)


def soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the Dice score of the probabilities, averaged over the classes but class 0.

    Dice looks at the overlap and not at the pixels that are background in both, so a rare class
    counts as much as a frequent one. The paper does not use it.

    Parameters
    ----------
    logits : Tensor
        (N, num_classes, H, W); at least two classes.
    labels : Tensor
        (N, H, W), class indices.

    Returns
    -------
    Tensor
        One number from 0 (all right) to 1, over all pixels of the batch. A class that is neither
        there nor predicted costs nothing: one pixel is added to both sides of the quotient.

    Examples
    --------
    >>> import torch
    >>> labels = torch.tensor([[[0, 1], [1, 0]]])
    >>> sure = 20 * torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).float()
    >>> round(soft_dice_loss(sure, labels).item(), 4)
    0.0
    """
    probabilities = logits.float().softmax(dim=1)[:, 1:]  # (N, num_classes - 1, H, W)
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities)
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    total = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()
