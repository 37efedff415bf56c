"""No number of the prose is typed by hand: the tool that looks, on small books; then the book."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import yaml
from conftest import ROOT
from torch.nn import functional as F
from typer.testing import CliRunner

from unet_tutorial import UNet, UpSampling
from unet_tutorial._numbers import find_names, find_numbers
from unet_tutorial.cli import app
from unet_tutorial.prose import Claim, report, trace_numbers
from unet_tutorial.results import write_results
from unet_tutorial.shapes import trace_shapes

runner = CliRunner()

# ---- numbers and names


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("572 pixels go in, 388 come out.", ["572", "388"]),
        ("It has 31,030,658 parameters, nearly 31 million.", ["31,030,658", "31 million"]),
        ("Dice 0.94, error 46 % or 46\u00a0% or $46\\%$", ["0.94", "46 %", "46\u00a0%", "46\\%"]),
        (
            "1/16 of 18 C² places, 572→388, 39×39, 28² of 2³",
            ["1/16", "18", "572", "388", "39", "39", "28", "2"],
        ),
        ("10–14 and 25-29, -3, 1e-5", ["10", "14", "25", "29", "3", "1e-5"]),
        ("(1, 128), 2n, CUDA 12.4.1", ["1", "128", "2", "12.4"]),
        ("a 512x520 image, not 39x39", ["512", "520", "39", "39"]),
        ("float32, conv2d, V_2, bfloat16, Otsu's two thirds", []),
        ("doubled to 38. 39 has no half: 0/0.", ["38", "39", "0/0"]),
    ],
)
def test_what_is_written_in_digits_is_a_number(text: str, numbers: list[str]) -> None:
    found = find_numbers(text)
    assert [number.text for number in found] == numbers
    assert [text[number.start : number.end] for number in found] == numbers


@pytest.mark.parametrize(
    ("prose", "printed"),
    [
        ("31,030,658", "31030658"),
        ("31 million", "31,030,658 parameters"),
        ("0.5", "0.500"),
        ("46 %", "46%"),
        ("46 %", "46.0%"),
        ("46 %", "0.46"),
        ("46 percent", "0.456"),
        ("0.46", "46.1%"),
        ("12.08", "12.0796"),
        ("12.08", "12.080"),
        ("46", "45.7"),
        ("1/16", "0.0625"),
        ("1/16", "a share of 1/16"),
        ("3/7", "0.43"),
        ("0/0", "0/0"),
        ("3", "3.0"),
    ],
)
def test_a_printed_number_is_the_prose_s_or_rounds_to_it(prose: str, printed: str) -> None:
    (number,) = find_numbers(prose)
    assert number.match(find_numbers(printed))


@pytest.mark.parametrize(
    ("prose", "printed"),
    [
        ("57", "572"),
        ("572", "1572"),
        ("46 %", "46"),
        ("46", "46%"),
        ("46 %", "0.466"),
        ("12.08", "12.1"),
        ("12.08", "12.086"),
        ("3/7", "0.44"),
        ("3/7", "0.4"),
        ("3", "2.96"),  # one digit is too little to round to
        ("0.5", "0.512"),
        ("30", "31,030,658"),
        ("0/0", "0"),
        ("0", "0/0"),
    ],
)
def test_another_number_is_not(prose: str, printed: str) -> None:
    (number,) = find_numbers(prose)
    assert not number.match(find_numbers(printed))


def claimed(text: str) -> list[str]:
    """List the numbers of a text that are in no name."""
    names = list(find_names(text))
    return [
        number.text
        for number in find_numbers(text)
        if not any(start <= number.start < end for _, start, end in names)
    ]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("In chapter 4 and exercises 1, 2 and 3 there are 5.", ["5"]),
        ("Section 1.2, figure 1, level 1: skips 2–4 bring 64.", ["64"]),
        ("`UNet(3, 5)` has 7, {doc}`Chapter 4 <4-skip>`", ["7"]),
        ("```python\nx = 3\n```\nThen 4.\n\n```\n5\n```\n", ["4"]),
        (
            "```{admonition} Guess 39\n:class: tip-2\n38 or 37?\n```\nand 36",
            ["39", "38", "37", "36"],
        ),
        ("````{admonition} A\n```python\n1\n```\n2\n````\n3", ["2", "3"]),
        ("Two 3×3 convolutions, 2 × 2 max pooling, 1×1 convolution, 2×2 up-convolution", []),
        ("a 3×3 unpadded convolution, 2×2 {term}`max pooling`, Kernel 3, stride 2", []),
        ("a padding of 1 and an image of 3×3", ["3", "3"]),
        ("ISBI 2012 has 30 slices in 8-bit gray, 2D", ["30"]),
        ("Ronneberger, Fischer and Brox, 2015; Brox (2015); Kingma, Brox 2015", ["2015"]),
        ("(Cireşan and others, 2012), Li et al. (2018), the 2000 pixels", ["2000"]),
        ("[8 steps](4-skip.ipynb) and <https://a.org/5> and arXiv 1505.04597", ["8"]),
        ("![572 pixels](_static/u2.png)", ["572"]),
        ('<div class="a 3">4</div><!-- 5 -->', ["4"]),
        ("1. One of 7\n2. Two\n\n**3.** Bold", ["7"]),
        ("It is doubled to\n38. Pad it.", ["38"]),
        ("### 1.1 Blue arrow\n### Down (1.2)\n### Up (3)\n# The 23 layers", ["23"]),
        ("| chapter | pixels |\n|---|---|\n| 1 | 14 |\n\n| size |\n|---|\n| 32 |", ["14", "32"]),
        ("$x^2 + y_{1} = 9$, CC BY 4.0", ["9"]),
    ],
)
def test_numbers_in_names_claim_nothing(text: str, claims: list[str]) -> None:
    assert claimed(text) == claims


# ---- sources, on small books


class Book:
    """A checkout with one chapter, ``a``, and no more than a test puts in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "book" / "results").mkdir(parents=True)
        (root / "_toc.yml").write_text("root: index\nparts:\n- chapters:\n  - file: a\n")
        (root / "book" / "index.md").write_text("# Index\n")

    def chapter(self, *cells: str | tuple[str, Any]) -> None:
        """Write it; prose, or code and what it prints: words, or data by kind."""
        notebook = nbformat.v4.new_notebook()
        for cell in cells:
            if isinstance(cell, str):
                notebook.cells.append(nbformat.v4.new_markdown_cell(cell))
                continue
            code, shown = cell
            output = (
                nbformat.v4.new_output("stream", text=shown)
                if isinstance(shown, str)
                else nbformat.v4.new_output("display_data", shown)
            )
            notebook.cells.append(nbformat.v4.new_code_cell(code, outputs=[output]))
        nbformat.write(notebook, self.root / "book" / "a.ipynb")

    def ledger(self, *entries: tuple[str, str, str]) -> None:
        """Write it: page, text and source of each entry."""
        rows = [dict(zip(("page", "text", "source"), entry, strict=True)) for entry in entries]
        (self.root / "book" / "numbers.yml").write_text(yaml.safe_dump(rows, allow_unicode=True))

    def sources(self) -> list[str]:
        """Return the source of every number."""
        return [claim.source for claim in trace_numbers(self.root)[0]]

    def problems(self) -> list[str]:
        """Return what is wrong with the ledger."""
        return trace_numbers(self.root)[1]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_pages_come_in_the_order_of_the_contents_and_missing_ones_are_left_out(book: Book) -> None:
    (book.root / "book" / "index.md").write_text("3 pages")
    book.chapter("2 more", ("x", "2"))
    with (book.root / "_toc.yml").open("a") as toc:
        toc.write("  - file: gone\n")
    claims, problems = trace_numbers(book.root)
    assert claims == [Claim("index", "3", "3 pages", ""), Claim("a", "2", "2 more", "cell 1")]
    assert not problems


def test_a_number_comes_from_the_nearest_cell_that_prints_it_exactly(book: Book) -> None:
    book.chapter(("x", "45.7"), "46 and 8", ("x", "none"), ("x", "46"), ("x", "8"), "8", ("x", "8"))
    assert book.sources() == ["cell 3", "cell 4", "cell 4"]
    book.chapter("46", ("x", "45.7"))
    assert book.sources() == ["cell 1: 45.7"]


def test_tables_count_but_neither_figures_nor_progress_nor_code(book: Book) -> None:
    table = {"text/html": "<table width=7><td>12&#64;</td></table>", "text/plain": "   a  12"}
    figure = {"text/plain": "<Figure size 950x490 with 1 Axes>", "image/png": "64"}
    book.chapter("12, 7, 950, 64, 33", ("x", table), ("x = 33", figure))
    assert book.sources() == ["cell 1", "", "", "", ""]
    widget = {"text/html": '<div class="unet-widget"><td>12</td></div>', "text/plain": "12"}
    book.chapter("12", ("x", widget))
    assert book.sources() == [""]
    progress = nbformat.v4.new_output("stream", name="stderr", text="100%")
    notebook = nbformat.read(book.root / "book" / "a.ipynb", as_version=4)
    notebook.cells = [
        nbformat.v4.new_markdown_cell("100 %"),
        nbformat.v4.new_code_cell("x", outputs=[progress]),
    ]
    nbformat.write(notebook, book.root / "book" / "a.ipynb")
    assert book.sources() == [""]


@pytest.mark.parametrize(
    "reads", ['read_results("board")', "scripts/board.py", "results/board.json"]
)
def test_a_result_file_counts_where_it_is_read_or_named(book: Book, reads: str) -> None:
    rows = [
        {"data": data, "seed": seed, "steps": 220, "dice": dice + seed / 10, "at": [None, 0.1234]}
        for data, dice in (("one", 0.315), ("two", 0.715))
        for seed in (0, 1, 2)
    ]
    file = book.root / "book" / "results" / "board.json"
    write_results(file, rows, description="", settings={"crop": 128})
    prose = "0.515 once, 41.5 % and 0.815 in the mean, spread 0.10, 0.123, 220 of 128"
    book.chapter(prose, (reads, "no number but 5"))
    assert [source.partition(":")[0] for source in book.sources()] == ["results/board.json"] * 7
    assert book.sources()[4:] == ["results/board.json: 0.1234", *["results/board.json"] * 2]
    book.chapter(prose + " in depths", ("read_results('depths')", "no number but 5"))
    assert set(book.sources()) == {""}
    book.chapter("0.715 and 91 % are one seed's, 0.66 nobody's, and 2 is too short", (reads, "5"))
    assert book.sources() == ["results/board.json", "results/board.json: 0.915", "", ""]


def test_the_ledger_names_tests_data_choices_papers_pages_and_inputs(book: Book) -> None:
    (book.root / "tests").mkdir()
    (book.root / "tests" / "test_x.py").write_text(
        "def test_31_030_658() -> None:\n    pass\n\n\nN = 31_030_658\n"
    )
    (book.root / "data").mkdir()
    (book.root / "data" / "card.md").write_text("30 slices of 512×512")
    (book.root / "settings.py").write_text("OTHER = 7\n\nSTEPS = {\n    'cpu': 220,\n}\n\nA = 8\n")
    (book.root / "book" / "index.md").write_text("A guess:\n\n> It prints 45\n> pixels and 572.")
    book.chapter("31,030,658 weights; 30 slices; 220 steps; w = 10; 39 rows", ("x", "45"))
    entries = [
        ("a", "31,030,658 weights", "test: tests/test_x.py::test_31_030_658"),
        ("a", "30 slices", "data: card.md"),
        ("a", "220 steps", "choice: settings.py::STEPS"),
        ("a", "w = 10", "paper: section 3"),
        ("a", "39 rows", "input: a colleague's image"),
        ("index", "It prints 45 pixels", "cell: a"),
    ]
    book.ledger(*entries)
    by_ledger = [f"ledger, {source}" for _, _, source in entries]
    assert book.sources() == [by_ledger[-1], "", *by_ledger[:-1]]
    assert book.problems() == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("test: tests/test_gone.py::test_it", "there is no file 'tests/test_gone.py'"),
        ("test: tests/test_x.py::test_gone", "there is no test 'test_gone' in tests/test_x.py"),
        ("test: tests/test_x.py", "there is no test '' in tests/test_x.py"),
        ("test: tests/test_x.py::test_it", "does not hold 96"),
        ("data: gone.md", "there is no file 'gone.md'"),
        ("data: card.md", "card.md does not hold 96"),
        ("choice: tests/test_x.py::NAME", "does not hold 96"),
        ("choice: tests/test_x.py", "does not hold 96"),
        ("cell: index", "index prints no 96"),
        ("cell: gone", "gone prints no 96"),
        ("paper: somewhere", "section or figure"),
        ("input: ", "say why"),
        ("guess: 96", "unknown source 'guess: 96'"),
        ("96", "unknown source '96'"),
    ],
)
def test_a_source_that_does_not_hold_is_reported(book: Book, source: str, said: str) -> None:
    (book.root / "tests").mkdir()
    (book.root / "tests" / "test_x.py").write_text("A = 95\nNAME = 97.2\n\ndef test_it():\n  196\n")
    (book.root / "data").mkdir()
    (book.root / "data" / "card.md").write_text("196")
    book.chapter("There are 96 of them", ("x", "5"))
    book.ledger(("a", "There are 96", source))
    assert book.sources() == [""]
    (problem,) = book.problems()
    assert problem.startswith("a, 'There are 96': ")
    assert said in problem


def test_stale_entries_are_reported(book: Book) -> None:
    book.chapter("It has 572 pixels, in chapter 4, and 388", ("x", "572"))
    book.ledger(
        ("a", "It has 571 pixels", "input: gone"),
        ("b", "It has 572 pixels", "input: no such page"),
        ("a", "It has 572 pixels", "input: printed"),
        ("a", "chapter 4", "input: a name"),
        ("a", "pixels", "input: no number"),
        ("a", "and 38", "input: half a number"),
    )
    assert book.problems() == [
        "a, 'It has 571 pixels': stale entry, not in the page",
        "b, 'It has 572 pixels': stale entry, not in the page",
        "a, 'It has 572 pixels': stale entry, none of its numbers needs it",
        "a, 'chapter 4': stale entry, none of its numbers needs it",
        "a, 'pixels': stale entry, none of its numbers needs it",
        "a, 'and 38': stale entry, none of its numbers needs it",
    ]


def test_the_ledger_knows_better_than_what_only_rounds(book: Book) -> None:
    book.chapter("Slices 10–14 are held out, 15 are left", ("x", "9.815 14.496 15"))
    assert book.sources() == ["cell 1: 9.815", "cell 1: 14.496", "cell 1"]
    book.ledger(("a", "10–14 are held out, 15", "input: why not"))
    assert book.sources() == ["ledger, input: why not", "ledger, input: why not", "cell 1"]
    assert book.problems() == []


def run(book: Book, *options: str) -> Any:
    return runner.invoke(app, ["chapters", "numbers", "--root", str(book.root), *options])


def test_an_invented_number_is_listed_last_and_fails(book: Book) -> None:
    book.chapter("572 become 387, in chapter 4", ("x", "572 -> 388"))
    result = run(book)
    assert result.exit_code == 1
    first, invented, last, sums, again, *advice = result.output.splitlines()
    assert " ".join(first.split()) == "a 572 572 become 387, in chapter 4 cell 1"
    assert last.endswith("name: cross reference")
    assert invented == again
    assert invented.split()[:2] == ["a", "387"]
    said = "1 printed by cells, 0 from results, 0 in the ledger, 1 names; 1 without a source"
    assert sums == f"3 numbers: {said}"
    assert "book/numbers.yml" in " ".join(advice)
    short = run(book, "--missing")
    assert short.exit_code == 1
    assert short.output.splitlines() == [sums, again, *advice]


def test_where_every_number_has_a_source_all_is_well(book: Book) -> None:
    book.chapter("572 become 388", ("x", "572 -> 388"))
    result = run(book, "--missing")
    assert result.exit_code == 0
    assert result.output.startswith("2 numbers: 2 printed by cells")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "ledger",
    [
        "- page: a\n  text: '572'\n",
        "- {page: a, text: 572, source: input}\n",
        "- 572\n",
        "page: a\n",
    ],
)
def test_problems_alone_fail_too(book: Book, ledger: str) -> None:
    book.chapter("572", ("x", "572"))
    (book.root / "book" / "numbers.yml").write_text(ledger)
    result = run(book)
    assert result.exit_code == 1
    assert "an entry has page, text and source" in result.output
    book.ledger(("a", "572", "input: printed"))
    result = run(book)
    assert result.exit_code == 1
    assert "problem: a, '572': stale entry" in result.output


def test_a_chapter_without_outputs_is_named(book: Book) -> None:
    book.chapter("572", ("x", ""))
    assert book.problems() == ["a: no cell prints a number; store the notebook with its outputs"]


def test_an_empty_ledger_and_no_checkout(book: Book, tmp_path: Path) -> None:
    book.chapter("Nothing", ("x", "1"))
    (book.root / "book" / "numbers.yml").write_text("# none yet\n")
    assert trace_numbers(book.root) == ([], [])
    result = runner.invoke(app, ["chapters", "numbers", "--root", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "root of a checkout" in result.output
    assert "--missing" in runner.invoke(app, ["chapters", "numbers", "--help"]).output


# ---- the book

CLAIMS, PROBLEMS = trace_numbers(ROOT)
PAGES = list(dict.fromkeys(claim.page for claim in CLAIMS))


def has_outputs(page: str) -> bool:
    """Say whether a page is Markdown, or a notebook that has been run."""
    file = ROOT / "book" / f"{page}.ipynb"
    if not file.exists():
        return True
    return any(cell.get("outputs") for cell in json.loads(file.read_text())["cells"])


@pytest.mark.parametrize("page", PAGES)
def test_every_number_of_the_prose_has_a_source(page: str) -> None:
    if not has_outputs(page):
        pytest.skip("a chapter without outputs prints nothing; test_chapters asks for them")
    without = [claim for claim in CLAIMS if claim.page == page and not claim.source]
    assert not without, report(without, [], missing=True)


def test_the_ledger_is_in_order() -> None:
    faults = [problem for problem in PROBLEMS if "no cell prints" not in problem]
    assert not faults, "\n".join(faults)


def test_the_papers_convolutions_take_184_pixels_in_sum() -> None:
    with torch.device("meta"):
        trace = trace_shapes(UNet(1, 2, padding="valid"), (572, 572))
    assert 572 - trace.output[1] == 184


def test_pytorch_alone_pools_39_to_19_and_cannot_join_38_with_39() -> None:
    image = torch.zeros(1, 1, 39, 39)
    pooled = F.max_pool2d(image, 2)
    assert pooled.shape[2:] == (19, 19)
    doubled = UpSampling(2, 1).up(torch.zeros(1, 2, 19, 19))
    assert doubled.shape[2:] == (38, 38)
    with pytest.raises(RuntimeError, match=r"Sizes of tensors must match.*38.*39"):
        torch.cat((doubled, image), dim=1)


def test_joining_64_and_64_channels_makes_128_and_adding_leaves_64() -> None:
    skip = torch.zeros(1, 64, 4, 4)
    from_below = UpSampling(128, 64).up(torch.zeros(1, 128, 2, 2))
    assert torch.cat((from_below, skip), dim=1).shape[1] == 128
    assert (from_below + skip).shape[1] == 64
