"""The scores of the book: pixels (Dice, IoU, pixel error) and cells (V_Rand, V_Info).

Pixel scores count pixels and do not care where they are. The two scores of the ISBI 2012 challenge
count cells: they ask whether two pixels that belong together were kept together. A gap of three
pixels in a membrane hardly moves the first kind and ruins the second.

Classes are those of the whole book: 0 is cell, 1 is membrane. Everything that NumPy can read as an
array is accepted; nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.special import entr
from skimage.segmentation import watershed

__all__ = [
    "DistanceProfile",
    "ObjectCounts",
    "Scores",
    "cell_segments",
    "dice",
    "error_by_distance",
    "evaluate",
    "grid_error",
    "iou",
    "objects_found",
    "pixel_error",
    "rim_error",
    "v_info",
    "v_rand",
]

THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


# --- scores of pixels -----------------------------------------------------------------------------


def dice(prediction: ArrayLike, target: ArrayLike) -> float:
    """Dice coefficient of two masks: 2 · common pixels / (pixels of one + of the other).

    Pooled over all pixels, and the same number as their F1 score. Symmetric, and tied to the
    intersection over union by ``dice = 2 iou / (1 + iou)``.

    Parameters
    ----------
    prediction, target : array_like of bool or of {0, 1}, equal shapes
        Masks of any number of dimensions; 1 is what is looked for (in this book: membrane). A stack
        gives one score for all its pixels, not the mean over slices.

    Returns
    -------
    float
        Between 0 (no common pixel) and 1 (equal masks). Two empty masks give 1.0: there was nothing
        to find and nothing was claimed. Other programs return 0, leave such images out, or add a
        small constant to both terms, which gives 1 here and blurs every other score; pooling over
        the whole set, as here, makes the choice matter only when the whole set is empty.

    Raises
    ------
    ValueError
        If the shapes differ, there is no pixel, or a value is neither 0 nor 1.

    See Also
    --------
    iou : The same comparison, stricter. Both are explained in chapter 0.

    Examples
    --------
    >>> dice([[1, 1, 0, 0]], [[0, 1, 1, 0]])
    0.5
    >>> dice([[0, 0]], [[0, 0]])
    1.0
    """
    a, b = _mask_pair(prediction, target)
    claimed_and_present = np.count_nonzero(a) + np.count_nonzero(b)
    if claimed_and_present == 0:
        return 1.0
    return float(2.0 * np.count_nonzero(a & b) / claimed_and_present)


def iou(prediction: ArrayLike, target: ArrayLike) -> float:
    """Intersection over union of two masks: common pixels / pixels of either, pooled over all.

    Also called the Jaccard index. The paper's IOU of 0.9203 and 0.7756 (section 4) is the cell
    tracking challenge's, which compares cell by cell and averages; this one compares pixels.

    Parameters
    ----------
    prediction, target : array_like of bool or of {0, 1}, equal shapes
        Masks of any number of dimensions; 1 is what is looked for (in this book: membrane).

    Returns
    -------
    float
        Between 0 and 1. Two empty masks give 1.0, for the reasons told at `dice`.

    Raises
    ------
    ValueError
        If the shapes differ, there is no pixel, or a value is neither 0 nor 1.

    See Also
    --------
    dice : The same comparison, milder. Both are explained in chapter 0.

    Examples
    --------
    >>> round(iou([[1, 1, 0, 0]], [[0, 1, 1, 0]]), 3)
    0.333
    """
    a, b = _mask_pair(prediction, target)
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def pixel_error(prediction: ArrayLike, target: ArrayLike) -> float:
    """Fraction of the pixels whose class is wrong, pooled over all pixels.

    One minus the accuracy. The challenge's tables print a pixel error too, but there it is one
    minus the best F-score over thresholds; the two are not comparable.

    Parameters
    ----------
    prediction, target : array_like of int or bool, equal shapes
        Class indices, any number of classes and dimensions.

    Returns
    -------
    float
        Between 0 (all right) and 1 (all wrong). In ISBI 2012, where about 22 % of the pixels are
        membrane, an image that claims no membrane at all already reaches 0.22.

    Raises
    ------
    ValueError
        If the shapes differ, there is no pixel, or a value is no class index (an integer from 0 to
        254; 255 is the white of an 8-bit mask, and such a mask must be turned into classes first).

    See Also
    --------
    error_by_distance : Where the wrong pixels are. Explained in chapter 0.

    Examples
    --------
    >>> pixel_error([[0, 1, 2, 0]], [[0, 1, 1, 0]])
    0.25
    """
    a, b = _class_pair(prediction, target)
    return float(np.count_nonzero(a != b) / a.size)


class DistanceProfile(NamedTuple):
    """Pixel error at growing distances from the nearest edge; the result of `error_by_distance`.

    Attributes
    ----------
    edges : ndarray of float, shape (K + 1,)
        Limits of the K distance ranges, in pixels; range k is
        edges[k] < distance <= edges[k + 1].
    error : ndarray of float, shape (K,)
        Pixel error within each range, in [0, 1]; NaN where a range holds no pixel.
    pixels : ndarray of int, shape (K,)
        Number of pixels in each range.
    """

    edges: NDArray[np.float64]
    error: NDArray[np.float64]
    pixels: NDArray[np.int64]


def error_by_distance(
    prediction: ArrayLike | Sequence[ArrayLike],
    target: ArrayLike | Sequence[ArrayLike],
    edges: Sequence[float] = (0, 1, 2, 3, 5, 8, 13, 21, np.inf),
) -> DistanceProfile:
    """Pixel error as a function of the distance from the nearest edge of the target.

    An edge is where the class changes. The distance of a pixel is that from its center to the
    center of the nearest pixel of another class in the same slice: 1 for a pixel that touches an
    edge. A network that knows *what* but not *where* errs in the first ranges only.

    Parameters
    ----------
    prediction, target : array_like of int or bool, (H, W) or (N, H, W), or a sequence of (H, W)
        Class indices, equal shapes. Distances are taken within each slice, errors pooled over all.
    edges : sequence of float
        Increasing limits of the ranges in pixels, at least two; range k holds
        ``edges[k] < distance <= edges[k + 1]``. Pixels outside all ranges are left out; a slice
        of a single class has no edge and lies at infinite distance.

    Returns
    -------
    DistanceProfile
        Limits, error and number of pixels of each range.

    Raises
    ------
    ValueError
        If shapes differ, a value is no class index, or the limits do not increase.

    See Also
    --------
    pixel_error : The mean over all ranges. The profile is shown in chapters 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([[0, 0, 0, 1, 1, 1, 0, 0, 0]])
    >>> thicker = np.array([[0, 0, 1, 1, 1, 1, 1, 0, 0]])
    >>> profile = error_by_distance(thicker, target, edges=(0, 1, 2, 3))
    >>> profile.error
    array([0.5, 0. , 0. ])
    >>> profile.pixels
    array([4, 3, 2])
    """
    limits = np.asarray(edges, dtype=float)
    if limits.ndim != 1 or limits.size < 2 or not np.all(limits[1:] > limits[:-1]):
        raise ValueError(
            f"edges must be at least two increasing distances in pixels, got {list(edges)}"
        )
    ranges = limits.size - 1
    wrong, pixels = np.zeros(ranges), np.zeros(ranges, dtype=np.int64)
    for a, b in _slice_pairs(prediction, target, "prediction", "target"):
        predicted, truth = _class_pair(a, b)
        # Closed on the right: bin k + 1 holds edges[k] < distance <= edges[k + 1].
        bins = np.digitize(_distance_to_edge(truth), limits, right=True) - 1
        inside = (bins >= 0) & (bins < ranges)
        pixels += np.bincount(bins[inside], minlength=ranges)
        wrong += np.bincount(bins[inside & (predicted != truth)], minlength=ranges)
    error = np.full(ranges, np.nan)
    np.divide(wrong, pixels, out=error, where=pixels > 0)
    return DistanceProfile(limits, error, pixels)


def grid_error(membrane_probability: Any, target: Any, square: int = 16) -> float:
    """Error of the amount of membrane in each square of a grid: *what* without *where*.

    Probabilities and target are averaged over squares, and the averages compared. A network that
    answers once for every 16×16 pixels and one that answers for each pixel are asked the same
    question in this way.

    Parameters
    ----------
    membrane_probability : array_like of float, (H, W) or (N, H, W), or a sequence of (H, W)
        Probability of class 1, in [0, 1].
    target : array_like of int or bool, same shapes
        Class indices: 1 is membrane.
    square : int
        Side of the squares in pixels. Rows and columns that fill no square are left out.

    Returns
    -------
    float
        Mean absolute difference of the two shares of membrane, 0 to 1.

    Raises
    ------
    ValueError
        If shapes differ, a value is out of range, or a slice holds no whole square.

    See Also
    --------
    pixel_error : The same for squares of one pixel and sharp answers. Explained in chapter 2.

    Examples
    --------
    A line that lies one pixel beside its place is wrong in pixels and right in squares:

    >>> target = [[0, 1, 0, 0], [0, 1, 0, 0]]
    >>> beside = [[1, 0, 0, 0], [1, 0, 0, 0]]
    >>> pixel_error(beside, target), grid_error(beside, target, square=2)
    (0.5, 0.0)
    """
    differences = []
    for given, truth in _slice_pairs(
        membrane_probability, target, "membrane_probability", "target"
    ):
        if square < 1 or min(truth.shape) < square:
            raise ValueError(f"no square of {square}×{square} pixels fits into {truth.shape}")
        claimed = _block_means(_probability(given), square)
        differences.append(np.abs(claimed - _block_means(_classes("target", truth) == 1, square)))
    return float(np.mean(np.concatenate([part.ravel() for part in differences])))


def _block_means(values: NDArray[Any], square: int) -> NDArray[np.float64]:
    """Average (H, W) over squares; what is left over at the lower and right border goes."""
    height, width = (length - length % square for length in values.shape)
    blocks = values[:height, :width].reshape(height // square, square, width // square, square)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=float))


def rim_error(prediction: ArrayLike, objects: ArrayLike, width: float = 4.0) -> float:
    """Share of the rims of objects that is taken for membrane.

    Mitochondria have dark rims that look like membranes through a small window. They lie inside
    cells, so every rim pixel that is called membrane is a mistake that context could prevent.

    Parameters
    ----------
    prediction : array_like of bool or of {0, 1}, (H, W) or (N, H, W), or a sequence of (H, W)
        1 is membrane.
    objects : array_like of bool or of {0, 1}, same shapes
        1 inside the objects, their rims included.
    width : float
        Pixels from the object's edge inward that count as rim.

    Returns
    -------
    float
        Between 0 and 1, pooled over all slices; NaN if there is no object.

    Raises
    ------
    ValueError
        If shapes differ or a value is neither 0 nor 1.

    See Also
    --------
    error_by_distance : The other errors. Explained in chapters 0 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> objects = np.zeros((9, 9), dtype=bool)
    >>> objects[2:7, 2:7] = True
    >>> left = np.zeros((9, 9), dtype=bool)
    >>> left[:, :3] = True
    >>> rim_error(left, objects, width=1)  # 5 of the 16 pixels around the middle
    0.3125
    """
    mistaken = rim_pixels = 0
    for claimed, inside in _slice_pairs(prediction, objects, "prediction", "objects"):
        mask = _mask("objects", inside)
        # Beyond the picture's border the object goes on: padding keeps its cut side from counting.
        depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
        rim = mask & (depth <= width)
        rim_pixels += int(np.count_nonzero(rim))
        mistaken += int(np.count_nonzero(rim & _mask("prediction", claimed)))
    return mistaken / rim_pixels if rim_pixels else float("nan")


def _distance_to_edge(classes: NDArray[Any]) -> NDArray[np.float64]:
    """Distance in pixels from each pixel of (H, W) to the nearest pixel of another class."""
    present = np.unique(classes)
    # Without a second class the distance transform has nothing to measure from.
    if present.size == 1:
        return np.full(classes.shape, np.inf)
    distance = np.zeros(classes.shape)
    for index in present:
        distance += ndimage.distance_transform_edt(classes == index)
    return distance


# --- scores of cells: ISBI 2012 -------------------------------------------------------------------


def cell_segments(membrane: ArrayLike, *, grow: bool = True) -> NDArray[np.int32]:
    """Give each cell that a membrane mask separates a number of its own.

    Two pixels are in the same cell when a path of 4-neighbors leads from one to the other without
    touching membrane. With `grow`, a watershed then floods the membrane from all cells at the same
    speed until they meet, so that every pixel belongs to a cell and the thickness of a membrane no
    longer matters. The flooded surface is the flat mask, as in the challenge's reference program,
    not the probability: what the score sees depends on the mask alone.

    Parameters
    ----------
    membrane : array_like of bool or of {0, 1}, shape (H, W)
        1 is membrane, 0 is cell.
    grow : bool
        Whether the cells grow over the membrane. Without it membrane pixels are numbered 0.

    Returns
    -------
    ndarray of int32, shape (H, W)
        Cell numbers from 1. If there is no cell at all, a grown mask is one undivided segment (all
        1), since nothing splits it, and an ungrown one is all 0.

    Raises
    ------
    ValueError
        If the mask is not two-dimensional, has no pixel, or a value is neither 0 nor 1.

    See Also
    --------
    v_rand : The score that compares such cells. Explained in chapter 0.

    Examples
    --------
    >>> cell_segments([[0, 0, 1, 1, 1, 0]], grow=False)
    array([[1, 1, 0, 0, 0, 2]], dtype=int32)
    >>> cell_segments([[0, 0, 1, 1, 0]])
    array([[1, 1, 1, 2, 2]], dtype=int32)
    """
    mask = _mask("membrane", membrane)
    if mask.ndim != 2:
        raise ValueError(
            f"membrane must be one slice (H, W), got shape {mask.shape}; "
            "pass the slices of a stack one by one"
        )
    # ndimage.label joins 4-neighbors in two dimensions unless it is told otherwise.
    cells, count = ndimage.label(~mask)
    if not grow or count == mask.size:
        return cells.astype(np.int32)
    if count == 0:
        return np.ones(mask.shape, dtype=np.int32)
    flat = np.zeros(mask.shape, dtype=np.uint8)
    return watershed(flat, cells, connectivity=1, watershed_line=False).astype(np.int32)


def v_rand(
    membrane: ArrayLike | Sequence[ArrayLike], target_membrane: ArrayLike | Sequence[ArrayLike]
) -> float:
    """Foreground-restricted Rand score after border thinning: the first score of ISBI 2012.

    The cells of both masks are compared on the pixels that are cell in the target. With p_ij the
    fraction of these pixels that lie in segment i of the proposal and in cell j of the target, s_i
    and t_j its sums over j and over i::

        V_Rand = Σ p_ij² / (½ Σ s_i² + ½ Σ t_j²)

    Read: of all pairs of pixels that one of the two puts into the same cell, how many do both?
    It is the F-score of Σp²/Σs² (falls when cells are merged) and Σp²/Σt² (falls when they are
    split). Cells of the target are 4-connected components, segments of the proposal are those of
    `cell_segments` with growing.

    Parameters
    ----------
    membrane, target_membrane : array_like of bool or of {0, 1}
        Proposed and true membranes, (H, W) or (N, H, W), or a sequence of (H, W); 1 is membrane.

    Returns
    -------
    float
        Between 0 and 1, 1 if the cells agree; the mean over slices. A proposal without any membrane
        and one without any cell are both a single segment, as in the reference program. A slice
        whose target has no cell counts 1.0: no pixel is judged, so none is wrong.

    Raises
    ------
    ValueError
        If the shapes differ or a value is neither 0 nor 1.

    Notes
    -----
    Definition: Arganda-Carreras et al. 2015, *Frontiers in Neuroanatomy* 9:142. Its reference
    program is Fiji's Trainable Segmentation, which keeps a line of one pixel between grown
    segments and counts each pixel of it as a segment of its own; without the line the scores differ
    in the fourth decimal (0.9964 against 0.9965 for the membranes of ISBI slice 0, two
    pixels too thick). The value printed as *Rand error* in the U-Net paper is an older one.

    See Also
    --------
    v_info, cell_segments, evaluate : Explained in chapter 0.

    Examples
    --------
    One membrane pixel out of nine is missing and two cells become one:

    >>> import numpy as np
    >>> target = np.zeros((9, 9), dtype=bool)
    >>> target[:, 4] = True
    >>> leaky = target.copy()
    >>> leaky[4, 4] = False
    >>> round(pixel_error(leaky, target), 3), round(v_rand(leaky, target), 3)
    (0.012, 0.667)
    """
    return _mean_cell_scores(membrane, target_membrane)[0]


def v_info(
    membrane: ArrayLike | Sequence[ArrayLike], target_membrane: ArrayLike | Sequence[ArrayLike]
) -> float:
    """Foreground-restricted information score after border thinning: the second of ISBI 2012.

    The same comparison as in `v_rand`, in information instead of pairs. With H the entropy of each
    division into cells and I their mutual information::

        V_Info = F-score of I / H(target) and I / H(proposal) = 2 I / (H(target) + H(proposal))

    Large cells weigh less than in `v_rand`, where a cell counts with its area squared.

    Parameters
    ----------
    membrane, target_membrane : array_like of bool or of {0, 1}
        Proposed and true membranes, (H, W) or (N, H, W), or a sequence of (H, W); 1 is membrane.

    Returns
    -------
    float
        Between 0 and 1, 1 if the cells agree; the mean over slices. Where both sides have one cell
        only, both entropies are zero and the score is 1.0, for they agree (the reference program
        gives 0); where only one side has, there is no common information and the score is 0.0. A
        slice whose target has no cell counts 1.0.

    Raises
    ------
    ValueError
        If the shapes differ or a value is neither 0 nor 1.

    See Also
    --------
    v_rand : Says where both scores are defined. Explained in chapter 0.

    Examples
    --------
    Four cells, of which two are merged:

    >>> import numpy as np
    >>> target = np.zeros((9, 9), dtype=bool)
    >>> target[:, 4] = target[4, :] = True
    >>> leaky = target.copy()
    >>> leaky[2, 4] = False
    >>> round(v_info(leaky, target), 3), v_info(target, target)
    (0.857, 1.0)
    """
    return _mean_cell_scores(membrane, target_membrane)[1]


def _mean_cell_scores(membrane: Any, target_membrane: Any) -> tuple[float, float]:
    """Mean of (V_Rand, V_Info) over the slices."""
    scores = [
        _cell_scores(cell_segments(proposed), cell_segments(truth, grow=False))
        for proposed, truth in _slice_pairs(
            membrane, target_membrane, "membrane", "target_membrane"
        )
    ]
    rand, info = np.mean(scores, axis=0)
    return float(rand), float(info)


def _cell_scores(
    segments: NDArray[np.int32], target_cells: NDArray[np.int32]
) -> tuple[float, float]:
    """(V_Rand, V_Info) of one slice, on the pixels where `target_cells` is not 0."""
    counted = target_cells > 0
    pixels = np.count_nonzero(counted)
    if pixels == 0:
        return 1.0, 1.0
    # Sparse, because thousands of specks on both sides would make millions of empty pairs.
    pairs = (segments[counted], target_cells[counted])
    table = sparse.coo_array((np.full(pixels, 1.0), pairs)).tocsr()  # sums equal pairs
    joint = table.data / pixels
    proposal, truth = table.sum(axis=1) / pixels, table.sum(axis=0) / pixels

    rand = np.sum(joint**2) / (0.5 * np.sum(proposal**2) + 0.5 * np.sum(truth**2))

    entropy_proposal, entropy_truth = entr(proposal).sum(), entr(truth).sum()
    both = entropy_proposal + entropy_truth
    # mutual information: H(proposal) + H(target) - H(both together)
    info = 2 * (both - entr(joint).sum()) / both if both > 0 else 1.0
    # Rounding may leave the last digit outside the range.
    return float(np.clip(rand, 0.0, 1.0)), float(np.clip(info, 0.0, 1.0))


# --- all scores at once ---------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Scores:
    """The five scores of the score board; made by `evaluate`.

    Attributes
    ----------
    pixel_error : float
        Fraction of wrong pixels at probability 0.5; lower is better.
    dice, iou : float
        Of the membrane at probability 0.5; higher is better.
    v_rand, v_info : float
        Mean over slices at `threshold`; higher is better.
    threshold : float
        The membrane probability at which `v_rand` was largest.

    Examples
    --------
    >>> print(Scores(0.0769, 0.8018, 0.6692, 0.9747, 0.9829, 0.4))
    pixel error 0.0769 · Dice 0.8018 · IoU 0.6692 · V_Rand 0.9747 · V_Info 0.9829 (threshold 0.4)
    """

    pixel_error: float
    dice: float
    iou: float
    v_rand: float
    v_info: float
    threshold: float

    def as_dict(self) -> dict[str, float]:
        """Return the scores by name, ready for JSON.

        Examples
        --------
        >>> Scores(0.0769, 0.8018, 0.6692, 0.9747, 0.9829, 0.4).as_dict()["v_rand"]
        0.9747
        """
        return asdict(self)

    def __str__(self) -> str:
        """One line for a reader."""
        return (
            f"pixel error {self.pixel_error:.4f} · Dice {self.dice:.4f} · IoU {self.iou:.4f} · "
            f"V_Rand {self.v_rand:.4f} · V_Info {self.v_info:.4f} (threshold {self.threshold:g})"
        )

    def __repr__(self) -> str:
        """One line with four digits of each score; short enough for a notebook."""
        values = ", ".join(f"{f.name}={getattr(self, f.name):.4g}" for f in fields(self))
        return f"Scores({values})"


def evaluate(
    membrane_probability: ArrayLike | Sequence[ArrayLike],
    target: ArrayLike | Sequence[ArrayLike],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Scores:
    """Score predicted membrane probabilities as the score board of the book does.

    Pixel error, Dice and IoU are taken at probability 0.5, which is the arg max of two classes, and
    pooled over the pixels of all slices. V_Rand and V_Info are averaged over the slices at one
    threshold, the same for all slices: the one with the largest mean V_Rand. That threshold is the
    only thing selected on the slices that are scored; the challenge does the same (it lets V_Info
    choose a threshold of its own, which here it may not). Say so beside the numbers.

    Parameters
    ----------
    membrane_probability : array_like of float, (H, W) or (N, H, W), or a sequence of (H, W)
        Probability of class 1, in [0, 1]. A pixel is membrane where it exceeds the threshold.
    target : array_like of int or bool, same shapes
        Class indices: 1 is membrane, every other class counts as cell.
    thresholds : sequence of float in [0, 1]
        Tried for V_Rand. Of equally good ones that nearest to 0.5 is taken.

    Returns
    -------
    Scores
        The five scores and the threshold.

    Raises
    ------
    ValueError
        If shapes differ, a probability is NaN or outside [0, 1] (logits need a softmax first), a
        target is no class index, or there is no threshold.

    Notes
    -----
    The time goes into growing the cells, once per slice and threshold. Where only the trend
    matters, as during training, ``thresholds=(0.5,)`` is several times faster.

    See Also
    --------
    dice, iou, pixel_error, v_rand, v_info : The single scores. Explained in chapter 0.

    Examples
    --------
    The membrane is found, but too faintly at one place:

    >>> import numpy as np
    >>> target = np.zeros((9, 9), dtype=int)
    >>> target[:, 4] = 1
    >>> probability = 0.9 * target
    >>> probability[4, 4] = 0.35
    >>> evaluate(probability, target)
    Scores(pixel_error=0.01235, dice=0.9412, iou=0.8889, v_rand=1, v_info=1, threshold=0.3)
    >>> evaluate(probability, target, thresholds=(0.5,)).v_rand < 0.7
    True
    """
    levels = [float(level) for level in thresholds]
    if not levels or not all(0.0 <= level <= 1.0 for level in levels):
        raise ValueError(f"thresholds must be one or more numbers in [0, 1], got {levels}")

    probabilities: list[NDArray[Any]] = []
    membranes: list[NDArray[np.bool_]] = []
    for given, truth in _slice_pairs(
        membrane_probability, target, "membrane_probability", "target"
    ):
        probabilities.append(_probability(given))
        membranes.append(_classes("target", truth) == 1)

    truth_pixels = np.concatenate([membrane.ravel() for membrane in membranes])
    claimed_pixels = np.concatenate([(slice_ > 0.5).ravel() for slice_ in probabilities])

    cells = [cell_segments(membrane, grow=False) for membrane in membranes]
    by_level = {
        level: np.mean(
            [
                _cell_scores(cell_segments(probability > level), true_cells)
                for probability, true_cells in zip(probabilities, cells, strict=True)
            ],
            axis=0,
        )
        for level in levels
    }
    # Rounded, so that equally good thresholds are not told apart by the last bit of a sum.
    best = max(levels, key=lambda level: (round(by_level[level][0], 12), -abs(level - 0.5)))
    rand, info = by_level[best]
    return Scores(
        pixel_error=pixel_error(claimed_pixels, truth_pixels),
        dice=dice(claimed_pixels, truth_pixels),
        iou=iou(claimed_pixels, truth_pixels),
        v_rand=float(rand),
        v_info=float(info),
        threshold=best,
    )


# --- scores of objects ----------------------------------------------------------------------------


class ObjectCounts(NamedTuple):
    """How many objects were found; the result of `objects_found`.

    Attributes
    ----------
    objects : int
        Objects of the label; the sum of the next four.
    recovered : int
        With a predicted object of their own: intersection over union above 1/2.
    merged : int
        Not recovered: the predicted object that holds more than half of this one holds more than
        half of another one as well.
    split : int
        Not recovered: predicted objects hold more than half of it together, but none alone.
    missed : int
        All others: hardly predicted, or not in its shape.
    """

    objects: int
    recovered: int
    merged: int
    split: int
    missed: int


def objects_found(
    foreground: ArrayLike | Sequence[ArrayLike], objects: ArrayLike | Sequence[ArrayLike]
) -> ObjectCounts:
    """Count the objects that a mask separates from their neighbors, and those that it does not.

    The mask's objects are its 4-connected parts. Above an intersection over union of 1/2 an
    object has at most one partner, and that partner no other, so nothing has to be assigned.

    Parameters
    ----------
    foreground : array_like of bool or of {0, 1}, (H, W) or (N, H, W), or a sequence of (H, W)
        1 is where an object is predicted.
    objects : array_like of int, same shapes
        The label: 0 is background, and each object has a number of its own within its slice.

    Returns
    -------
    ObjectCounts
        Sums over all slices.

    Raises
    ------
    ValueError
        If shapes differ, the mask is no mask, or the objects are no whole numbers from 0.

    See Also
    --------
    v_rand : Which asks the same of cells that fill the plane. Explained in chapter 5.

    Examples
    --------
    One object is there, two are joined by a bridge, one is cut in three:

    >>> objects = [[1, 1, 0, 2, 2, 0, 3, 3, 0, 4, 4, 4, 4, 4]]
    >>> foreground = [[1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1]]
    >>> objects_found(foreground, objects)
    ObjectCounts(objects=4, recovered=1, merged=2, split=1, missed=0)
    """
    total = np.zeros(5, dtype=int)
    for claimed, truth in _slice_pairs(foreground, objects, "foreground", "objects"):
        if truth.dtype.kind not in "iu" or truth.min() < 0:
            raise ValueError(
                f"objects must hold whole numbers from 0, got {_values(truth)}; "
                "skimage.measure.label makes them of a mask"
            )
        total += _count_objects(_mask("foreground", claimed), truth)
    return ObjectCounts(*(int(number) for number in total))


def _count_objects(claimed: NDArray[np.bool_], truth: NDArray[Any]) -> list[int]:
    parts, number = ndimage.label(claimed)
    names, numbered = np.unique(truth, return_inverse=True)
    first = int(names[0] == 0)  # the background, where there is one, is no object
    common = sparse.coo_matrix(
        (np.ones(truth.size, dtype=np.int64), (numbered.ravel(), parts.ravel())),
        shape=(len(names), number + 1),
    ).toarray()
    of_object, of_part = common.sum(axis=1)[first:], common.sum(axis=0)[1:]
    common = common[first:, 1:]  # (objects, predicted parts)
    union = of_object[:, None] + of_part[None, :] - common
    recovered = (2 * common > union).any(axis=1)
    holds = 2 * common > of_object[:, None]  # the part holds more than half of the object
    shared = holds[:, holds.sum(axis=0) > 1].any(axis=1)
    together = 2 * common.sum(axis=1) > of_object
    merged = ~recovered & shared
    split = ~recovered & together & ~holds.any(axis=1)
    missed = ~(recovered | merged | split)
    kinds = (recovered, merged, split, missed)
    return [len(of_object), *(int(np.count_nonzero(kind)) for kind in kinds)]


# --- what is accepted -----------------------------------------------------------------------------


def _array(name: str, given: Any) -> NDArray[Any]:
    """`given` as an array of numbers or booleans with at least one pixel."""
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got an array of dtype {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name} holds no pixel, its shape is {array.shape}")
    return array


def _mask(name: str, given: Any) -> NDArray[np.bool_]:
    """`given` as booleans; anything but 0 and 1 is refused."""
    array = _array(name, given)
    if array.dtype != bool and not np.all((array == 0) | (array == 1)):
        raise ValueError(
            f"{name} must be a mask of booleans or of 0 and 1, got {_values(array)}; "
            f"compare first, e.g. `{name} > 0.5` for probabilities or `{name} == 255` for an image"
        )
    return array.astype(bool, copy=False)


def _classes(name: str, given: Any) -> NDArray[Any]:
    """`given` as class indices; fractions, negative numbers and 255 are refused."""
    array = _array(name, given)
    if array.dtype != bool and not np.all((array >= 0) & (array < 255) & (array == array // 1)):
        raise ValueError(
            f"{name} must hold class indices (integers from 0 to 254), got {_values(array)}; "
            "take the arg max of logits or probabilities, and turn an image of 0 and 255 into "
            "classes by comparing it"
        )
    return array


def _probability(given: Any) -> NDArray[Any]:
    """`given` as probabilities; NaN and values outside [0, 1] are refused."""
    array = _array("membrane_probability", given)
    # Averages of probabilities overshoot by rounding; logits overshoot by far more.
    if not np.all((array >= -1e-5) & (array <= 1 + 1e-5)):
        raise ValueError(
            f"membrane_probability must lie in [0, 1], got {_values(array)}; "
            "apply softmax to logits and take class 1"
        )
    return array


def _values(array: NDArray[Any]) -> str:
    """Describe the values of an array for an error message."""
    distinct = np.unique(array)
    if distinct.size <= 4:
        return f"the values {', '.join(f'{value:g}' for value in distinct.astype(float))}"
    gaps = ", NaN among them" if np.isnan(distinct.astype(float)).any() else ""
    low, high = np.nanmin(array), np.nanmax(array)
    return f"{distinct.size} distinct values from {low:g} to {high:g}{gaps}"


def _same_shape(a: NDArray[Any], b: NDArray[Any], name_a: str, name_b: str) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} and {name_b} must have equal shapes, got {a.shape} and {b.shape}; "
            "crop or resize one of them first"
        )


def _mask_pair(prediction: Any, target: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = _mask("prediction", prediction), _mask("target", target)
    _same_shape(a, b, "prediction", "target")
    return a, b


def _class_pair(prediction: Any, target: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = _classes("prediction", prediction), _classes("target", target)
    _same_shape(a, b, "prediction", "target")
    return a, b


def _slices(name: str, given: Any) -> list[NDArray[Any]]:
    """Split (H, W), (N, H, W) or a sequence of (H, W) of any sizes into arrays of (H, W)."""
    if isinstance(given, (list, tuple)) and given and all(np.ndim(item) == 2 for item in given):
        return [np.asarray(item) for item in given]
    array = _array(name, given)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{name} must be (H, W), (N, H, W) or a sequence of (H, W), got shape {array.shape}"
        )
    return [array] if array.ndim == 2 else list(array)


def _slice_pairs(
    a: Any, b: Any, name_a: str, name_b: str
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    slices_a, slices_b = _slices(name_a, a), _slices(name_b, b)
    if len(slices_a) != len(slices_b):
        raise ValueError(
            f"{name_a} and {name_b} must have equally many slices, "
            f"got {len(slices_a)} and {len(slices_b)}"
        )
    for slice_a, slice_b in zip(slices_a, slices_b, strict=True):
        _same_shape(slice_a, slice_b, name_a, name_b)
    return list(zip(slices_a, slices_b, strict=True))
