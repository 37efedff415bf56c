"""Every chapter has three questions with an explanation for each answer, and links its terms."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import nn

from unet_tutorial import UNet, UpSampling
from unet_tutorial.chapters import list_chapters
from unet_tutorial.losses import border_weight_map
from unet_tutorial.metrics import dice, pixel_error, v_rand
from unet_tutorial.shapes import trace_shapes

CHAPTERS = [chapter for chapter in list_chapters(ROOT) if chapter.stem[0].isdigit()]
by_name = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)

ANSWER = re.compile(
    r'<details class="(?P<kind>[^"]*)">\n'
    r"<summary>(?P<letter>[A-Z])\. (?P<text>[^\n]+)</summary>\n\n"
    r"(?P<why>.+?)\n\n</details>",
    re.DOTALL,
)


class Answer(NamedTuple):
    """One answer to choose."""

    kind: str
    letter: str
    text: str
    why: str

    @property
    def is_right(self) -> bool:
        """Whether it is marked as the right one."""
        return "right" in self.kind.split()


def cells(chapter: Path) -> list[Any]:
    """Return the cells of prose of a chapter."""
    found = nbformat.read(chapter, as_version=4).cells
    return [cell for cell in found if cell.cell_type == "markdown"]


def self_test(chapter: Path) -> dict[str, list[Answer]]:
    """Return the questions of a chapter with their answers."""
    (cell,) = [cell for cell in cells(chapter) if cell.id == "self-test"]
    _, *parts = re.split(r"(?m)^\*\*[0-9]+\.\*\* ", cell.source)
    questions = {}
    for part in parts:
        question, _, _ = part.partition("\n\n")
        questions[question] = [Answer(*match.groups()) for match in ANSWER.finditer(part)]
        rest = ANSWER.sub("", part.removeprefix(question)).strip()
        assert not rest, f"not an answer: {rest}"
    return questions


@by_name
def test_there_are_three_questions_with_one_right_answer_each(chapter: Path) -> None:
    questions = self_test(chapter)
    assert len(questions) == 3
    for question, answers in questions.items():
        assert question.endswith("?")
        assert 3 <= len(answers) <= 4
        assert [answer.letter for answer in answers] == list("ABCD"[: len(answers)])
        assert sum(answer.is_right for answer in answers) == 1
        assert len({answer.text for answer in answers}) == len(answers)


@by_name
def test_every_answer_says_first_whether_it_is_right_and_then_why(chapter: Path) -> None:
    for answers in self_test(chapter).values():
        for answer in answers:
            word = "**Right.** " if answer.is_right else "**Not quite.** "
            assert answer.why.startswith(word), answer.text
            assert len(answer.why) > len(word) + 40, f"no explanation: {answer.text}"
            assert answer.kind in ("answer", "answer right")
            assert not re.search(r"[`*]", answer.text), "Markdown within HTML stays as it is"


@by_name
def test_the_right_answer_cannot_be_guessed_from_its_place_or_length(chapter: Path) -> None:
    questions = list(self_test(chapter).values())
    right = [next(a for a in answers if a.is_right) for answers in questions]
    assert len({answer.letter for answer in right}) > 1
    longest = [max(answers, key=lambda answer: len(answer.text)) for answers in questions]
    assert right != longest


@by_name
def test_the_self_test_stands_right_before_the_exercises(chapter: Path) -> None:
    prose = cells(chapter)
    place = [cell.id for cell in prose].index("self-test")
    assert prose[place].source.startswith("## Check yourself\n\nThree questions.")
    assert prose[place + 1].source.startswith("## Exercises")


def test_no_letter_is_right_more_often_than_every_second_time() -> None:
    answers = [answers for chapter in CHAPTERS for answers in self_test(chapter).values()]
    right = [next(a.letter for a in group if a.is_right) for group in answers]
    assert max(right.count(letter) for letter in "ABC") <= len(right) / 2


# ---- the answers, computed


def walls() -> dict[str, tuple[float, float]]:
    """Score a bump and a gap of three pixels in a wall: pixel error and V_Rand."""
    wall = np.zeros((25, 25), dtype=int)
    wall[:, 12] = 1
    bump, gap = wall.copy(), wall.copy()
    bump[11:14, 13], gap[11:14, 12] = 1, 0
    found = {"bump": bump, "gap": gap}
    return {name: (pixel_error(g, wall), round(v_rand(g, wall), 3)) for name, g in found.items()}


def test_0_the_gap_costs_v_rand_and_nothing_else() -> None:
    found = walls()
    assert found["bump"][0] == found["gap"][0]
    assert (found["bump"][1], found["gap"][1]) == (1.0, 0.667)


def never() -> int:
    """Dice of an answer that never says membrane."""
    truth = np.eye(8, dtype=int)
    return int(dice(np.zeros_like(truth), truth))


def unpadded() -> int:
    """Side of what two unpadded 3×3 convolutions leave of 572 pixels."""
    with torch.device("meta"):
        two = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
        return int(two(torch.zeros(1, 1, 572, 572)).shape[-1])


def dropped() -> str:
    """Tell what becomes of ones in a drop-out layer of rate 0.5."""
    layer = nn.Dropout(0.5).train()
    values = sorted({int(v) for v in layer(torch.ones(1000)).tolist()})
    return " or ".join(map(str, values))


def joined() -> int:
    """Channels that the convolution after a skip connection takes."""
    block = UpSampling(128, 64)
    below, skip = torch.zeros(1, 128, 4, 4), torch.zeros(1, 64, 8, 8)
    return int(torch.cat((block.up(below), skip), dim=1).shape[1])


COMPUTED: list[tuple[int, int, Callable[[], object]]] = [
    (0, 1, never),
    (1, 3, unpadded),
    (2, 3, dropped),
    (4, 1, joined),
]


@pytest.mark.parametrize(("number", "which", "compute"), COMPUTED)
def test_only_the_right_answer_begins_with_what_is_computed(
    number: int, which: int, compute: Callable[[], object]
) -> None:
    answers = list(self_test(CHAPTERS[number]).values())[which - 1]
    said = re.compile(rf"{re.escape(str(compute()))}(?![.\d]| or )")
    assert [bool(said.match(answer.text)) for answer in answers] == [a.is_right for a in answers]


def test_2_the_bottom_has_the_parameters_and_the_top_the_memory() -> None:
    with torch.device("meta"):
        shares = trace_shapes(UNet(1, 2), (512, 512)).shares()
    parameters, arithmetic, memory = zip(*shares.values(), strict=True)
    stages = list(shares)
    assert stages[int(np.argmax(parameters))] == "bottleneck"
    assert stages[int(np.argmax(memory))] == "dec1"
    assert max(arithmetic) < 0.17


def test_3_every_pixel_of_the_larger_map_is_hit_by_one_stencil() -> None:
    met = F.conv_transpose2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2), stride=2)
    assert met.unique().tolist() == [1]


def test_5_the_border_term_needs_two_cells() -> None:
    alone = np.zeros((1, 40), dtype=int)
    alone[0, :10] = 1
    pair = alone.copy()
    pair[0, 11:] = 2
    assert border_weight_map(alone).max() == 0
    assert round(float(border_weight_map(pair).max()), 2) == 9.23


def test_6_a_small_gradient_is_nothing_in_float16_and_something_in_bfloat16() -> None:
    gradient = torch.tensor(1e-8)
    assert gradient.half() == 0
    assert gradient.bfloat16() > 0


def test_7_classes_change_the_last_layer_only() -> None:
    with torch.device("meta"):
        few, many = UNet(1, 2, base_channels=16), UNet(1, 10, base_channels=16)
    changed = [
        name
        for (name, a), b in zip(few.named_parameters(), many.parameters(), strict=True)
        if a.shape != b.shape
    ]
    assert changed == ["out.weight", "out.bias"]
    sizes = [sum(p.numel() for p in network.out.parameters()) for network in (few, many)]
    assert sizes == [34, 170]


# ---- on the page, without a script


def test_the_page_shows_questions_and_opens_answers_without_a_script(
    browser: Any, tmp_path: Path
) -> None:
    from markdown_it import MarkdownIt

    (cell,) = [cell for cell in cells(CHAPTERS[4]) if cell.id == "self-test"]
    shutil.copy(ROOT / "book" / "_static" / "book.css", tmp_path)
    page_file = tmp_path / "page.html"
    page_file.write_text(
        '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="book.css">'
        f'<article class="bd-article">{MarkdownIt().render(cell.source)}</article>',
        encoding="utf-8",
    )
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    first = page.locator("details.answer").first
    why = first.locator("p")
    assert not why.is_visible()
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    why.wait_for(state="visible")
    assert why.inner_text().startswith(("Right.", "Not quite."))
    assert page.locator("details.answer[open]").count() == 1
    context.close()


# ---- the glossary

LINK = re.compile(r"\]\(glossary\.md#([^)\s]+)\)")


def entries() -> set[str]:
    """Return the anchors of the glossary's entries, as Sphinx makes them of the terms.

    That they are so on the built page is seen in test_site, which follows every link.
    """
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", text, re.DOTALL)
    terms = [line for block in blocks for line in block.splitlines() if re.match(r"\S", line)]
    return {"term-" + re.sub(r"[^\w]+", "-", re.sub("×", "", term)) for term in terms}


@by_name
def test_a_chapter_links_its_first_terms_to_their_entries(chapter: Path) -> None:
    links = [link for cell in cells(chapter) for link in LINK.findall(cell.source)]
    assert 3 <= len(links) <= 6
    assert len(set(links)) == len(links), "one link for each term is enough"
    assert set(links) <= entries()


def test_an_entry_that_is_not_there_would_be_noticed() -> None:
    assert "term-transposed-convolution" in entries()
    assert "term-inverse-convolution" not in entries()
