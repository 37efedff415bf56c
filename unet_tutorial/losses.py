"""What the training makes small."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Pixel-wise softmax and cross-entropy: a classifier's loss, averaged over the pixels.

    Parameters
    ----------
    logits : Tensor
        (N, num_classes, H, W), any real values.
    labels : Tensor
        (N, H, W), class indices.

    Returns
    -------
    Tensor
        One number, at least 0. (Paper, section 3, without its weight map.)

    Examples
    --------
    >>> import torch
    >>> undecided = torch.zeros(1, 2, 8, 8)
    >>> round(cross_entropy(undecided, torch.zeros(1, 8, 8, dtype=torch.long)).item(), 4)
    0.6931
    """
    return F.cross_entropy(logits.float(), labels)


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
