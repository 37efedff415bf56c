"""The exercises: solutions pass, stubs do not, wrong answers are told what is wrong with them.

Then what the folded solutions of the chapters say is so.
"""

import ast
import copy
import functools
import gc
import importlib
import io
import json
import math
import os
import re
import shutil
import weakref
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, MakeBook
from torch import nn
from typer.testing import CliRunner

from unet_tutorial import DownSampling, UNet, UpSampling
from unet_tutorial.ablations import count_objects
from unet_tutorial.augmentation import deform, elastic_displacement, look_up
from unet_tutorial.chapters import run_chapters
from unet_tutorial.cli import app
from unet_tutorial.datasets import touching_cells
from unet_tutorial.documents import article_namespace
from unet_tutorial.exercises import _progress, check, hint, list_exercises, progress
from unet_tutorial.exercises._chapter5 import _tiles_along
from unet_tutorial.exercises._exercise import CHAPTERS, exercise
from unet_tutorial.exercises._progress import Progress
from unet_tutorial.export import fold_batch_norm
from unet_tutorial.inference import predict, tile_plan
from unet_tutorial.losses import border_weight_map
from unet_tutorial.metrics import dice, pixel_error, v_rand
from unet_tutorial.partial import ContractingPath
from unet_tutorial.shapes import receptive_field, trace_shapes
from unet_tutorial.surgery import cut_skips
from unet_tutorial.training import TrainingConfig, fit


@pytest.fixture(autouse=True)
def new_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with nothing solved, and leave it so."""
    monkeypatch.setattr(_progress, "_session", {})


# --- every exercise of the book -------------------------------------------------------------------

NUMBERS = [one.number for one in list_exercises()]
by_number = pytest.mark.parametrize("number", NUMBERS)
FAULTY = {"6.4"}  # the stub is no gap to fill in but code to repair


@functools.cache
def cells(chapter: int) -> dict[str, Any]:
    """Return the cells of a chapter by their ids."""
    (notebook,) = (ROOT / "book").glob(f"{chapter}-*.ipynb")
    return {cell.id: cell for cell in nbformat.read(notebook, as_version=4).cells}


def cell(number: str, kind: str = "") -> Any:
    name = f"exercise-{number.replace('.', '-')}{kind}"
    return cells(int(number.split(".")[0]))[name]


def solution(number: str) -> str:
    """Return the code that is folded away below an exercise."""
    return "\n".join(
        re.findall(r"```python\n(.*?)```", cell(number, "-solution").source, re.DOTALL)
    )


def say(run: Callable[[], Any]) -> str:
    """Return what is printed, without the line breaks that it was wrapped at."""
    said = io.StringIO()
    with redirect_stdout(said):
        run()
    return " ".join(said.getvalue().split())


@functools.cache
def solved_up_to(number: str) -> dict[str, Any]:
    """Solve the exercises of a chapter, up to this one; return the names that there are then."""
    earlier = [one.number for one in list_exercises(int(number[0]))]
    before = earlier[: earlier.index(number)]
    names = dict(solved_up_to(before[-1])) if before else {}
    with redirect_stdout(io.StringIO()):
        exec(cell(number).source, names)
        exec(solution(number), names)
    return names


def check_line(number: str) -> str:
    last = ast.parse(cell(number).source).body[-1]
    return ast.unparse(last)


def wrong_answers(number: str) -> list[tuple[Any, str]]:
    return answers(number).WRONG.get(number, [])


def answers(number: str) -> Any:
    return importlib.import_module(f"answers.chapter{number.split('.')[0]}")


def test_two_to_four_exercises_a_chapter_numbered_from_one() -> None:
    for chapter in {one.chapter for one in list_exercises()}:
        numbers = [one.number for one in list_exercises(chapter)]
        assert 2 <= len(numbers) <= 4
        assert numbers == [f"{chapter}.{place}" for place in range(1, len(numbers) + 1)]


@by_number
def test_an_exercise_is_a_task_a_stub_that_ends_with_its_check_and_a_folded_solution(
    number: str,
) -> None:
    assert cell(number, "-task").source.startswith(f"**{number}** ")
    assert re.fullmatch(rf"check\('{re.escape(number)}', .+\)", check_line(number))
    assert "..." in cell(number).source or number in FAULTY
    folded = cell(number, "-solution").source
    assert folded.startswith("<details>\n<summary>Solution</summary>\n\n")
    assert folded.endswith("\n\n</details>")
    order = [name for name in cells(int(number[0])) if name.startswith("exercise-")]
    first = order.index(f"exercise-{number.replace('.', '-')}-task")
    assert [name.partition(number.replace(".", "-"))[2] for name in order[first : first + 3]] == [
        "-task",
        "",
        "-solution",
    ]


@pytest.mark.parametrize("chapter", sorted({one.chapter for one in list_exercises()}))
def test_no_exercise_of_a_notebook_lacks_its_check_and_progress_comes_last(chapter: int) -> None:
    checked = {one.number for one in list_exercises(chapter)}
    written = re.findall(r'check\("([\d.]+)"', "\n".join(c.source for c in cells(chapter).values()))
    assert set(written) == checked
    last = [c for c in cells(chapter).values() if c.cell_type == "code"][-1]
    assert last.source.splitlines()[-1] == "progress()"
    assert "nbval-ignore-output" in last.metadata.tags


@by_number
def test_the_stub_is_not_solved_and_says_what_is_asked_for(number: str) -> None:
    names = {}
    before = [one.number for one in list_exercises(int(number[0]))]
    if before.index(number):
        names = dict(solved_up_to(before[before.index(number) - 1]))
    said = say(lambda: exec(cell(number).source, names))
    (one,) = (one for one in list_exercises() if one.number == number)
    assert said.startswith((f"○ {number} {one.title}", f"✗ {number} {one.title}"))
    if said.startswith("○"):
        assert f"The answer is {one.answer}." in said


@by_number
def test_the_solution_passes_in_less_than_a_second_or_so(number: str) -> None:
    names, verdicts = dict(solved_up_to(number)), []
    names["check"] = lambda *given: verdicts.append(check(*given))
    said = say(lambda: exec(check_line(number), names))
    assert verdicts == [True], said


@by_number
def test_another_right_answer_passes_too(number: str) -> None:
    for answer in answers(number).RIGHT[number]:
        said = say(functools.partial(check, number, answer))
        assert said.startswith(f"✓ {number}"), said


@by_number
def test_the_check_leaves_random_numbers_as_they_were(number: str) -> None:
    names = dict(solved_up_to(number))
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    say(lambda: exec(check_line(number), names))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@by_number
def test_there_are_five_wrong_answers_or_more(number: str) -> None:
    assert len(wrong_answers(number)) >= 5


@pytest.mark.parametrize(
    ("number", "place"),
    [(number, place) for number in NUMBERS for place in range(len(wrong_answers(number)))],
)
def test_a_plausible_wrong_answer_is_rejected_and_told_what_is_wrong(
    number: str, place: int
) -> None:
    answer, fragment = wrong_answers(number)[place]
    verdicts = []
    said = say(lambda: verdicts.append(check(number, answer)))
    assert verdicts == [False], said
    wrong = said.partition(f"✗ {number} ")[2].partition("Hint: ")[0]
    assert fragment in wrong, said


OTHER_KINDS: list[Any] = [
    7,
    True,
    float("nan"),
    "text",
    [],
    (),
    {},
    object(),
    (1, 2, 3, 4, 5, 6, 7),
    torch.zeros(3),
    np.zeros((2, 2)),
    nn.ReLU(),
    nn.ReLU,
    lambda: 0,
    len,
]


@by_number
def test_an_answer_of_another_kind_is_no_error_and_never_right(number: str) -> None:
    for answer in OTHER_KINDS:
        said = say(functools.partial(check, number, answer))
        assert f"✓ {number}" not in said, said
        assert "Checking it stopped" not in said, said
        assert " object at 0x" not in said, said


# --- check, hint, progress ------------------------------------------------------------------------


def test_a_solved_exercise_says_what_it_has_shown_and_the_verdict_shows_nothing() -> None:
    verdict = None

    def solve() -> None:
        nonlocal verdict
        verdict = check("3.1", ((32, 40, 60), 8224))

    said = say(solve)
    assert said.startswith("✓ 3.1 Shape and size of an up-convolution A stencil of four weights")
    assert verdict
    assert verdict == 1
    assert repr(verdict) == "True"
    assert say(verdict._ipython_display_) == ""


def test_an_unknown_number_lists_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no exercise '3\.9'; chapter 3 has 3\.1 \(Shape and"):
        check("3.9", 1)
    with pytest.raises(ValueError, match=r"no exercise '12'; .* such as '3\.2', in the chapters"):
        hint("12")


def test_two_exercises_of_a_number_or_a_number_that_is_none_are_refused() -> None:
    for number, message in {"3.1": "two exercises 3.1", "3": "chapter.place", "9.1": "9.1"}.items():
        with pytest.raises(ValueError, match=message):
            exercise(number, "", answer="", hint="", shown="")


def test_a_hint_can_be_had_without_an_answer() -> None:
    assert say(lambda: hint("3.2")).startswith("3.2 A transposed convolution, written as a scatter")


def test_what_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(small: Any, stencil: Any, stride: Any) -> None:
        while True:
            pass

    monkeypatch.setattr("unet_tutorial.exercises.SECONDS", 0.2)
    said = say(lambda: check("3.2", endless))
    assert "It had not ended after 0.2 seconds" in said


def test_ctrl_c_goes_through() -> None:
    def interrupted(small: Any, stencil: Any, stride: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("3.2", interrupted)


def test_an_error_in_the_reader_s_code_is_named_with_its_line() -> None:
    def scatter(small: Any, stencil: Any, stride: Any) -> Any:
        large = torch.zeros(1, 1)
        large[5, 5] += small[0, 0]
        return large

    said = say(lambda: check("3.2", scatter))
    assert "stopped with IndexError: index 5 is out of bounds" in said
    assert "in your line" in said
    assert "large[5, 5] += small[0, 0]" in said
    assert "/" not in said.partition("IndexError")[2].partition("Hint")[0]


def test_leaving_is_an_error_like_any_other() -> None:
    def leave(small: Any, stencil: Any, stride: Any) -> None:
        raise SystemExit

    assert "stopped with SystemExit" in say(lambda: check("3.2", leave))


def test_every_chapter_is_called_as_in_its_notebook() -> None:
    for number, title in CHAPTERS.items():
        for notebook in (ROOT / "book").glob(f"{number}-*.ipynb"):
            (heading, *_) = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()
            assert title.lower() in heading.lower()


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep progress in a file of the test's own, as a new kernel would find it."""
    file = tmp_path / "somewhere" / "progress.json"
    monkeypatch.setenv("UNET_TUTORIAL_PROGRESS", str(file))
    return file


def solve_one() -> None:
    say(lambda: check("3.1", ((32, 40, 60), 8224)))


def test_progress_is_kept_in_a_file_and_comes_back(
    own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "✓" not in repr(progress())
    solve_one()
    monkeypatch.setattr(_progress, "_session", {})  # another kernel
    assert "✓ 3.1  ○ 3.2" in repr(progress())
    assert json.loads(own_file.read_text())["solved"].keys() == {"3.1"}
    say(lambda: check("3.1", 5))  # a later try takes nothing away
    assert "✓ 3.1" in repr(progress())


def test_the_first_day_counts(own_file: Path) -> None:
    own_file.parent.mkdir()
    own_file.write_text('{"format": 1, "solved": {"3.1": "2020-02-02", "99.1": "2020-02-02"}}')
    solve_one()
    kept = json.loads(own_file.read_text())["solved"]
    assert kept == {"3.1": "2020-02-02", "99.1": "2020-02-02"}, "of another version of the book"
    assert "99.1" not in repr(progress())


@pytest.mark.parametrize("text", ["{", "[]", '{"solved": 3}', '{"solved": {"3.1": 5}}', "", "\xff"])
def test_a_broken_file_is_set_aside_and_said(own_file: Path, text: str) -> None:
    own_file.parent.mkdir()
    for aside in ("progress.json.broken", "progress.json.broken2"):
        own_file.write_bytes(text.encode("latin-1"))
        said = say(solve_out_loud)
        assert aside in said
        assert own_file.with_name(aside).read_bytes() == text.encode("latin-1")
        assert "✓ 3.1" in repr(progress())


def solve_out_loud() -> None:
    _progress._session.clear()
    check("3.1", ((32, 40, 60), 8224))


def test_where_nothing_can_be_written_the_check_still_answers(own_file: Path) -> None:
    own_file.parent.write_text("a file in the way")
    said = say(solve_out_loud)
    assert said.startswith("✓ 3.1")
    assert "kept until this kernel ends only" in said
    assert "✓ 3.1" in repr(progress())


def test_tests_and_stored_pages_know_nobody_s_own_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _progress.progress_file() is None, "a run of pytest"
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.delenv("UNET_TUTORIAL_PROGRESS", raising=False)
    assert _progress.progress_file().name == "exercises.json"
    monkeypatch.setenv("UNET_TUTORIAL_PROGRESS", "")
    assert _progress.progress_file() is None, "the runner of the chapters"


def test_the_runner_of_the_chapters_turns_progress_off(
    make_book: MakeBook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine, seen = str(tmp_path / "mine.json"), []

    def execute(notebook: str, target: str, **options: Any) -> None:
        seen.append(os.environ["UNET_TUTORIAL_PROGRESS"])
        shutil.copy(notebook, target)

    monkeypatch.setattr("papermill.execute_notebook", execute)
    monkeypatch.setenv("UNET_TUTORIAL_PROGRESS", mine)
    run_chapters(make_book(one=["1"], two=["2"]), tmp_path / "out")
    assert seen == ["", ""], "kernels inherit it"
    assert os.environ["UNET_TUTORIAL_PROGRESS"] == mine


def test_the_table_of_progress_has_a_row_for_each_chapter_with_its_count(own_file: Path) -> None:
    solve_one()
    page = progress()._repr_html_()
    assert '<table class="dataframe">' in page, "which the book's theme darkens with the page"
    assert ">Your exercises: ✓ solved, ○ open</caption>" in page
    assert page.count('<th scope="row"') == len({one.chapter for one in list_exercises()})
    number = len(list_exercises(3))
    assert f">3 Expansive path</th><td>1 of {number}</td>" in page
    assert f"1 of {len(NUMBERS)} exercises solved. Open next: 3.2 A transposed" in page
    assert set(re.findall(r"color: (\w+)", page)) == {"inherit"}


def test_the_next_exercise_follows_the_last_solved_and_the_left_out_come_at_the_end() -> None:
    assert f"Open next: {NUMBERS[0]} " in repr(Progress({}))
    assert f"Open next: {NUMBERS[2]} " in repr(Progress(dict.fromkeys([NUMBERS[1]], "")))
    assert f"Open next: {NUMBERS[0]} " in repr(Progress(dict.fromkeys(NUMBERS[1:], "")))
    assert f"{len(NUMBERS)} exercises solved: all of them." in repr(
        Progress(dict.fromkeys(NUMBERS, ""))
    )


def test_the_command_line_lists_and_forgets(own_file: Path) -> None:
    solve_one()
    run = functools.partial(CliRunner().invoke, app)
    listed = run(["exercises"]).output
    assert "✓ 3.1 Shape and size of an up-convolution" in listed
    assert "○ 3.2 A transposed convolution" in listed
    assert "1 of " in listed
    kept = run(["exercises", "--reset"], input="n\n")
    assert kept.exit_code == 1
    assert own_file.exists()
    gone = run(["exercises", "--reset"], input="y\n")
    assert gone.exit_code == 0
    assert not own_file.exists()
    assert "✓" not in run(["exercises"]).output
    assert run(["exercises", "--reset", "--yes"]).exit_code == 0


# --- what the folded solutions say ----------------------------------------------------------------


def test_0_1_a_membrane_too_wide_costs_pixels_and_no_cell() -> None:
    wall = np.zeros((25, 25), dtype=int)
    wall[:, 12] = 1
    wide = np.maximum(wall, np.maximum(np.roll(wall, 1, 1), np.roll(wall, -1, 1)))
    assert pixel_error(wide, wall) == pytest.approx(2 / 25)
    assert dice(wide, wall) == 0.5
    assert v_rand(wide, wall) == 1


def test_0_2_without_pooling_it_takes_70_convolutions_to_see_140_pixels() -> None:
    def sees(number: int) -> int:
        return 1 + 2 * number

    three = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(5)))
    three.in_channels = 1
    assert receptive_field(three, "conv5").height == sees(5)
    assert sees(69) < 140 <= sees(70)


def test_1_1_shapes_of_two_steps_down() -> None:
    down, pool = DownSampling(3, 32)(torch.zeros(1, 3, 96, 160))
    assert down.shape[1:] == (32, 96, 160)
    assert pool.shape[1:] == (32, 48, 80)
    down, pool = DownSampling(32, 64)(pool)
    assert down.shape[1:] == (64, 48, 80)
    assert pool.shape[1:] == (64, 24, 40)


def test_1_pooling_drops_a_row_in_silence_and_the_path_refuses() -> None:
    assert nn.MaxPool2d(2)(torch.zeros(1, 1, 39, 39)).shape == (1, 1, 19, 19)
    with pytest.raises(ValueError, match=r"39 is odd.*32x32, 48x48"):
        ContractingPath(1, 2, base_channels=2)(torch.zeros(1, 1, 39, 39))


def test_1_4_a_convolution_in_the_place_of_pooling() -> None:
    class Striding(DownSampling):
        def __init__(self, in_channels: int, out_channels: int) -> None:
            super().__init__(in_channels, out_channels)
            self.pool = nn.Conv2d(out_channels, out_channels, kernel_size=2, stride=2)

    block = Striding(1, 64)
    assert sum(p.numel() for p in block.pool.parameters()) == 16_448
    plain = DownSampling(1, 64)(torch.zeros(1, 1, 32, 32))
    ours = block(torch.zeros(1, 1, 32, 32))
    assert [t.shape for t in ours] == [t.shape for t in plain]


def test_2_1_a_level_deeper_and_half_as_wide() -> None:
    with torch.device("meta"):
        model = UNet(1, 2, base_channels=32, depth=5)
    trace = trace_shapes(model, (512, 512))
    assert trace["bottleneck"].output[0] == 1024
    assert 0.44 < trace.shares()["bottleneck"][0] < 0.47
    assert receptive_field(model, "bottleneck").height == 284


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_2_2_what_the_exercise_counts_is_what_the_real_layers_see(depth: int) -> None:
    with torch.device("meta"):
        path = ContractingPath(1, 2, base_channels=1, depth=depth, bottleneck=True)
    assert receptive_field(path, "bottleneck").height == 9 * 2**depth - 4


def test_2_3_drop_out_in_training_mode_gives_two_answers() -> None:
    torch.manual_seed(0)
    network = ContractingPath(1, 2, base_channels=4, bottleneck=True)
    network.bottleneck = nn.Sequential(network.bottleneck, nn.Dropout(0.5))
    image = torch.rand(1, 1, 64, 64)
    network.train()
    assert not torch.equal(network(image), network(image))
    assert np.array_equal(predict(network, image[0]), predict(network, image[0]))


def test_2_half_the_channels_of_the_bottleneck_save_next_to_no_memory() -> None:
    with torch.device("meta"):
        whole, half = UNet(1, 2), UNet(1, 2, base_channels=32)
    assert trace_shapes(whole, (1024, 1024)).shares()["bottleneck"][2] < 0.01
    ratio = (
        trace_shapes(half, (1024, 1024)).activation_bytes
        / trace_shapes(whole, (1024, 1024)).activation_bytes
    )
    assert ratio == pytest.approx(0.5, abs=0.01)


def test_3_1_shape_and_size_of_an_up_convolution() -> None:
    layer = nn.ConvTranspose2d(64, 32, kernel_size=2, stride=2)
    assert layer(torch.zeros(1, 64, 20, 30)).shape[1:] == (32, 40, 60)
    assert sum(p.numel() for p in layer.parameters()) == 8_224


def test_3_3_a_stencil_of_ones_repeats() -> None:
    small = torch.rand(1, 1, 3, 3)
    ours = F.conv_transpose2d(small, torch.ones(1, 1, 2, 2), stride=2)
    assert torch.equal(ours, F.interpolate(small, scale_factor=2, mode="nearest"))


def test_3_3_kernel_4_stride_2_overlaps_evenly() -> None:
    ones = torch.ones(1, 1, 6, 6)
    counts = F.conv_transpose2d(ones, torch.ones(1, 1, 4, 4), stride=2, padding=1)
    assert counts[0, 0, 2:-2, 2:-2].unique().tolist() == [4]


def test_3_4_interpolation_and_a_1x1_have_a_quarter_of_the_weights() -> None:
    transposed, bilinear = (
        UpSampling(8, 6, upsampling=way).up for way in ("transposed", "bilinear")
    )
    assert transposed.weight.numel() == 4 * bilinear[1].weight.numel()


def test_4_1_shapes_of_a_network_for_color() -> None:
    with torch.device("meta"):
        trace = trace_shapes(UNet(3, 5, base_channels=32, depth=3), (200, 264))
    assert trace.output == (5, 200, 264)
    assert trace["bottleneck"].output == (256, 25, 33)
    assert trace["dec1"].input == (64, 200, 264)


def test_4_2_pytorch_s_own_message_for_39_pixels() -> None:
    skip = torch.zeros(1, 1, 39, 39)
    up = F.interpolate(nn.MaxPool2d(2)(skip), scale_factor=2)
    with pytest.raises(RuntimeError, match="size 38 but got size 39"):
        torch.cat((up, skip), dim=1)


def test_39_pixels_fail_in_the_article_s_network_where_8_meets_9() -> None:
    assert [39 // 2**level for level in range(5)] == [39, 19, 9, 4, 2]
    with pytest.raises(RuntimeError, match=r"size 8 but got size 9|Expected 8 but got 9"):
        article_namespace()["UNet"](1, 2)(torch.zeros(1, 1, 39, 39))


def test_4_3_the_notes_final_layer_gets_64_channels_and_takes_32() -> None:
    with pytest.raises(RuntimeError, match="to have 32 channels, but got 64"):
        nn.Conv2d(32, 2, 1)(torch.zeros(1, 64, 8, 8))


def test_4_4_all_four_skips_can_be_cut_at_once() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=2).eval()
    image = torch.rand(1, 1, 32, 32)
    with cut_skips(model, 1, 2, 3, 4):
        severed = model(image)
    assert not torch.equal(severed, model(image))


def test_4_2_pooling_rounds_down_or_up() -> None:
    assert F.max_pool2d(torch.zeros(1, 1, 39, 39), 2).shape[-1] * 2 == 38
    assert F.max_pool2d(torch.zeros(1, 1, 39, 39), 2, ceil_mode=True).shape[-1] * 2 == 40


def test_4_3_her_weights_load_as_they_are_and_answer_otherwise() -> None:
    torch.manual_seed(0)
    hers, ours = (UNet(1, 2, base_channels=4, depth=2).eval() for _ in range(2))
    state = answers("4.1").translate_by_rolling(copy.deepcopy(hers.state_dict()))
    assert not ours.load_state_dict(state).missing_keys
    image = torch.rand(1, 1, 16, 16)
    assert not torch.allclose(ours(image), hers(image), atol=1e-4)


def test_5_1_a_gap_of_nine_pixels_weighs_more_than_one_and_of_ten_less() -> None:
    def weight(gap: int) -> float:
        row = np.ones((1, 60 + gap), dtype=int)
        row[0, 30 : 30 + gap], row[0, 30 + gap :] = 0, 2
        return float(border_weight_map(row).max())

    assert np.sqrt(50 * np.log(10)) == pytest.approx(10.7, abs=0.05)
    assert weight(9) == pytest.approx(1.35, abs=0.005)
    assert weight(10) == pytest.approx(0.89, abs=0.005)


def test_5_2_tiles_of_the_paper_for_two_micrographs() -> None:
    with torch.device("meta"):
        paper = UNet(1, 2, padding="valid")
    assert len(tile_plan(paper, (1000, 700), 572)) == 6
    assert len({tile.input_rows for tile in tile_plan(paper, (1000, 700), 572)}) == 3
    first, second, *_ = tile_plan(paper, (1, 4096), 572)
    assert second.input_columns[0] - first.input_columns[0] == 384
    assert len(tile_plan(paper, (4096, 4096), 572)) == 11 * 11 == 121


def test_5_3_labels_that_are_interpolated_are_no_classes() -> None:
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :, 30:34] = 1
    bend = elastic_displacement(1, (64, 64), generator=torch.Generator().manual_seed(0))
    _, nearest = deform(labels[:, None].float(), labels, bend)
    mixed, _ = deform(labels[:, None].float(), labels, bend)
    assert nearest.unique().tolist() == [0, 1]
    assert ((mixed > 0) & (mixed < 1)).any()
    thinner, share = mixed.long().float().mean(), nearest.float().mean()
    assert thinner < 0.9 * share
    between = torch.tensor([[[0.0, 2.0]]])
    middle, _ = look_up(between, between[0].long(), torch.tensor([[[0.0]], [[0.5]]]))
    assert middle.item() == 1, "the mean of class 0 and class 2"


def test_5_4_the_weight_map_works_without_balanced_classes() -> None:
    cells = touching_cells(n_images=2, size=64)
    budget = TrainingConfig(steps=2, batch_size=2, crop_size=32, balanced=True)
    losses = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        model = UNet(1, 2, base_channels=2, depth=2, norm="batch")
        changed = replace(budget, balanced=False, border_weight=weight)
        result = fit(model, cells, changed, report=None)
        losses[weight] = result.losses[0]
        assert count_objects(model, cells.validation).objects == 4
    assert losses[0.0] != losses[10.0], "the first weights are the same, the pixels' weights not"


LENGTHS = [1, 4, 5, 16, 387, 388, 389, 512, 572, 700, 772, 773, 776, 1000, 1156, 1157, 4096]


def test_5_2_tiles_are_counted_as_tile_plan_counts_them() -> None:
    with torch.device("meta"):
        paper = UNet(1, 2, base_channels=1, padding="valid")
    for length in LENGTHS:
        assert len(tile_plan(paper, (length, 1), 572)) == _tiles_along(length), length


def test_5_1_is_the_term_of_the_weight_map() -> None:
    row = np.array([[1, 1, 0, 0, 0, 2, 2]])
    to_nearest, to_second = np.array([[1, 2, 1], [3, 2, 3]])
    by_hand = answers("5.1").border_weight(to_nearest, to_second)
    assert np.allclose(border_weight_map(row)[0, 2:5], by_hand)


def test_6_1_a_sum_of_losses_keeps_every_graph() -> None:
    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    def kept_by(summand: Callable[[torch.Tensor], torch.Tensor]) -> int:
        everything, layer, total = [], nn.Linear(4, 4), torch.zeros(())

        def keep(tensor: torch.Tensor) -> Kept:
            kept = Kept(tensor)
            everything.append(weakref.ref(kept))
            return kept

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
            for _ in range(5):
                loss = (layer(torch.rand(2, 4)).sin() + 2).mean()
                total = total + summand(loss)
                del loss
        gc.collect()
        assert total > 0
        return sum(kept() is not None for kept in everything)

    assert kept_by(lambda loss: loss) >= 5
    assert kept_by(lambda loss: loss.detach()) == 0


def test_6_2_what_is_left_when_convolutions_take_no_time() -> None:
    share = 0.75
    assert 1 / (1 - share + share / 2) == pytest.approx(1.6)
    assert 1 - share + share / 2 == 0.625
    assert 1 / (1 - share) == 4


@pytest.mark.parametrize(("norm", "same"), [(None, True), ("batch", False)])
def test_6_3_two_halves_make_a_batch_but_not_its_statistics(norm: str | None, same: bool) -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=4, depth=2, norm=norm)
    images, labels = torch.rand(8, 1, 32, 32), torch.randint(2, (8, 32, 32))
    images *= torch.linspace(0.5, 2, 8).reshape(8, 1, 1, 1)

    def gradient(batches: list[slice]) -> torch.Tensor:
        model.zero_grad()
        for batch in batches:
            loss = F.cross_entropy(model(images[batch]), labels[batch]) / len(batches)
            loss.backward()
        return torch.cat([weights.grad.flatten() for weights in model.parameters()])

    whole, halves = gradient([slice(8)]), gradient([slice(4), slice(4, 8)])
    assert torch.allclose(whole, halves, atol=1e-6) == same


def test_6_clinic_how_many_pixels_a_sum_in_float16_bears() -> None:
    def background_twice(crops: int, size: int, dtype: torch.dtype) -> float:
        pixels = torch.ones(crops, size, size, dtype=dtype)
        return (pixels + pixels).sum().item()  # probability 1 and target 1 everywhere

    assert background_twice(8, 63, torch.float32) == 63_504
    assert background_twice(8, 63, torch.float16) == 63_504 - 16 == 63_488  # 32 apart: rounded
    assert background_twice(8, 64, torch.float32) == 65_536
    assert background_twice(8, 64, torch.float16) == float("inf")
    assert background_twice(8, 128, torch.bfloat16) == 2 * 8 * 128**2 == 262_144
    # bfloat16 has the room, and 8 binary digits: what is small beside the sum is lost.
    assert torch.tensor(262_144.0).bfloat16() + 512 == 262_144


def test_6_4_the_loss_of_probabilities_never_falls_below_0_313() -> None:
    sure = torch.tensor([[-1000.0, 1000.0]]).softmax(dim=1)
    least = F.cross_entropy(sure, torch.tensor([1])).item()
    assert f"{least:.3f}" == f"{math.log(1 + math.exp(-1)):.3f}" == "0.313"


def test_7_1_five_classes_of_color_images_that_do_not_fit() -> None:
    model = UNet(3, 5, base_channels=16)
    with pytest.raises(ValueError, match=r"250.*240x240.*256x256"):
        model(torch.zeros(1, 3, 250, 250))
    assert predict(model, np.zeros((3, 250, 250))).shape == (5, 250, 250)
    assert sum(weights.numel() for weights in model.out.parameters()) == 5 * 17 == 85


def test_7_2_a_folded_batch_normalization_by_hand() -> None:
    model = UNet(1, 2, base_channels=1, depth=1, norm="batch").eval()
    convolution, normalization = model.contracting[0].conv.conv_block[:2]
    with torch.no_grad():
        convolution.weight.fill_(3)
        normalization.running_mean.fill_(1)
        normalization.running_var.fill_(4 - normalization.eps)
        normalization.weight.fill_(2)
        normalization.bias.fill_(5)
    folded = fold_batch_norm(model).contracting[0].conv.conv_block[0]
    assert convolution.bias is None
    assert torch.equal(folded.weight, torch.full((1, 1, 3, 3), 3.0))
    assert folded.bias.tolist() == [4]
    assert 3 * 2 + 4 == (6 - 1) / 2 * 2 + 5 == 10


def test_7_3_what_predict_does_around_the_network() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=2).eval()
    (whole,) = tile_plan(model, (500, 333))
    assert (whole.input_rows, whole.input_columns) == ((-6, 506), (-1, 335))
    image = np.random.default_rng(0).random((500, 333), dtype=np.float32)
    mirrored = np.pad(image, ((6, 6), (1, 2)), mode="reflect")
    assert mirrored.shape == (512, 336)
    with torch.inference_mode():
        chances = model(torch.from_numpy(mirrored)[None, None])[0].softmax(0).numpy()
    expected = predict(model, image, precision="float32")
    assert np.allclose(chances[:, 6:-6, 1:-2], expected, rtol=0, atol=1e-6)


def test_7_float16_counts_11_binary_digits_and_loses_a_part_in_2048_at_most() -> None:
    kind = torch.finfo(torch.float16)
    assert kind.eps == 2.0 ** -(11 - 1)
    weights = torch.empty(10_000).uniform_(0.001, 1, generator=torch.Generator().manual_seed(0))
    lost = ((weights.half().float() - weights) / weights).abs().max()
    assert 0.9 / 2048 < lost <= 1 / 2048


def test_7_2_by_hand_and_by_the_package_are_one_layer() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, base_channels=4, depth=1, norm="batch").eval()
    convolution, normalization = model.contracting[0].conv.conv_block[3:5]
    nn.init.uniform_(normalization.running_mean)
    nn.init.uniform_(normalization.running_var)
    theirs = fold_batch_norm(model).contracting[0].conv.conv_block[2]
    ours = answers("7.1").fold_into_a_new_layer(convolution, normalization)
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)
