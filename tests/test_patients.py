"""Every patient of the clinic has its symptom, and the one line that differs cures it."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unet_tutorial import patients
from unet_tutorial.clinic import check_folder
from unet_tutorial.datasets import load
from unet_tutorial.lesson import PROFILES, Lesson, source_of
from unet_tutorial.metrics import dice
from unet_tutorial.patients import Case

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    """Narrow networks and small images: seconds on one thread."""
    return Lesson(PROFILES["smoke"], load("membranes", n_images=6, size=128), 0, CPU)


@pytest.fixture(scope="module")
def trained(lesson: Lesson) -> Case:
    return patients.train_for_b_and_c(lesson, steps=50)


def score(case: Case) -> float:
    return dice(case.picture > 127, case.labels > 0)


@pytest.mark.parametrize("letter", "abcde")
def test_patient_and_twin_differ_in_one_line(letter: str) -> None:
    twins = (getattr(patients, f"{kind}_{letter}") for kind in ("patient", "cured"))
    old, new = (source_of(function).splitlines()[1:] for function in twins)
    changes = [line[0] for line in difflib.ndiff(old, new) if line[0] in "+-"]
    assert changes == ["-", "+"]


def test_a_labels_of_255_make_the_loss_negative_and_the_mask_white(lesson: Lesson) -> None:
    case = patients.patient_a(lesson, steps=20)
    assert np.unique(case.labels).tolist() == [0, 255]
    assert case.losses[-1] < case.losses[0] < 0
    assert (case.picture == 255).all()


def test_a_is_cured_by_labels_of_0_and_1(lesson: Lesson) -> None:
    case = patients.cured_a(lesson, steps=50)
    assert np.unique(case.labels).tolist() == [0, 1]
    assert 0 < case.losses[-1] < case.losses[0]
    assert score(case) > 0.5


def test_a_s_first_try_is_refused_by_cross_entropy() -> None:
    with pytest.raises(IndexError, match="Target 255 is out of bounds"):
        F.cross_entropy(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1), 255))


def test_b_shows_0_and_1_of_255_though_the_network_is_right(trained: Case) -> None:
    sick, cured = patients.patient_b(trained), patients.cured_b(trained)
    assert np.unique(sick.picture).tolist() == [0, 1]
    assert dice(sick.picture, sick.labels) == score(cured) > 0.6


def test_c_shows_how_sure_the_network_is_of_the_other_class(trained: Case) -> None:
    sick, cured = patients.patient_c(trained), patients.cured_c(trained)
    assert len(np.unique(sick.picture)) > 100
    membrane = sick.labels == 1
    assert sick.picture[membrane].mean() < sick.picture[~membrane].mean() - 20
    assert np.unique(cured.picture).tolist() == [0, 255]
    assert score(cured) > 0.6


def test_d_never_finds_the_rare_class_and_is_right_at_99_percent(lesson: Lesson) -> None:
    case = patients.patient_d(lesson, steps=60)
    assert 0 < case.labels.mean() < 0.01
    assert not case.picture.any()
    assert case.losses[-1] < case.losses[0]
    assert np.mean((case.picture > 0) == case.labels) > 0.99


def test_d_is_cured_by_weights_at_the_price_of_accuracy() -> None:
    wider = Lesson(PROFILES["cpu"], load("membranes", n_images=8, size=192), 0, CPU)
    case = patients.cured_d(wider, steps=60)
    rare = case.labels == 1
    found = case.picture > 0
    assert found[rare].mean() > 0.3
    assert found[rare].mean() > 4 * found[~rare].mean()
    assert np.mean(found == rare) < 0.99


def test_e_is_nan_from_the_first_step_and_black(lesson: Lesson) -> None:
    case = patients.patient_e(lesson, steps=2)
    assert np.isnan(case.losses).all()
    assert np.isnan(case.logits).all()
    assert not case.picture.any()


def test_e_is_cured_by_sums_in_float32(lesson: Lesson) -> None:
    case = patients.cured_e(lesson, steps=50)
    assert np.isfinite(case.losses).all()
    assert score(case) > 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_e_s_sum_overflows_whatever_the_first_weights_say(seed: int) -> None:
    lesson = Lesson(PROFILES["smoke"], load("membranes", n_images=3, size=128), seed, CPU)
    assert np.isnan(patients.patient_e(lesson, steps=1).losses).all()


def test_junctions_lie_where_three_cells_meet_and_nowhere_else() -> None:
    walls = np.zeros((41, 61), int)
    walls[20] = walls[:20, 15] = walls[20:, 45] = 1
    rows, columns = np.nonzero(patients.junctions(walls, radius=0))
    assert np.abs(rows - 20).max() <= 1
    assert sorted(columns.tolist()) == [15, 45]
    assert not patients.junctions(np.zeros((9, 9), int)).any()
    two_cells = np.zeros((9, 9), int)
    two_cells[4] = 1
    assert not patients.junctions(two_cells).any()


def test_three_questions_count_what_cannot_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    logits = np.full((2, 1, 8), np.nan, np.float32)
    patients.three_questions(
        Case([], np.arange(8)[None], logits, np.arange(8, dtype=np.uint8)[None])
    )
    assert capsys.readouterr().out.splitlines() == [
        "labels:  8 different values, from 0 to 7",
        "logits:  2 channels, from nan to nan",
        "picture: 8 different values, from 0 to 7",
    ]


@pytest.mark.parametrize(
    ("patient", "faults"),
    [
        ("A", ["masks of 0 and 255"]),
        ("B", ["masks that look black"]),
        ("C", ["masks that can mean more than one thing"]),
        ("D", ["masks that look black", "rare class"]),
        ("E", ["masks of 0 and 255"]),
    ],
)
def test_what_the_files_alone_betray(patient: str, faults: list[str], tmp_path: Path) -> None:
    patients.write_folder(tmp_path, patient, load("membranes", n_images=3, size=256))
    found = check_folder(tmp_path / "images", tmp_path / "masks")
    assert [finding.fault for finding in found] == faults


def test_an_unknown_patient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="A, B, C, D, E, got 'F'"):
        patients.write_folder(tmp_path, "F", load("membranes", n_images=2, size=64))
