"""Measured files become tables, and every one of them has its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from unet_tutorial.cli import app
from unet_tutorial.results import list_scripts, machine_name, read_results, table_of_means

ROOT = Path(__file__).resolve().parents[1]
ROWS: list[dict[str, Any]] = [
    {"part": "a", "net": "one", "seed": 0, "error": 0.1, "averaged": True},
    {"part": "a", "net": "one", "seed": 1, "error": 0.3, "averaged": True},
    {"part": "a", "net": "two", "seed": 0, "error": None, "averaged": False},
    {"part": "b", "net": "one", "seed": 0, "error": 1234.5, "averaged": False},
]


def test_groups_get_mean_spread_and_number() -> None:
    table = table_of_means(ROWS, ["net", "averaged"], ["error"], {"part": "a"})
    assert table == [
        ["net", "averaged", "error", "runs"],
        ["one", "yes", "0.200 ± 0.141", "2"],
        ["two", "no", "–", "1"],
    ]
    assert table_of_means(ROWS, ["part"], ["error"], {"part": "b"})[1] == ["b", "1234", "1"]


def test_the_number_one_is_no_yes() -> None:
    rows = [{"slices": slices, "frozen": bool(slices), "error": 0.1} for slices in (1, 0)]
    table = table_of_means(rows, ["slices", "frozen"], ["error"])
    assert [cells[:2] for cells in table[1:]] == [["1", "yes"], ["0", "no"]]


@pytest.mark.parametrize(
    ("value", "cell"), [(0, "0.000"), (3.4e-07, "3e-07"), (0.0006, "0.001"), (0.0123, "0.012")]
)
def test_a_small_value_is_not_nothing(value: float, cell: str) -> None:
    assert table_of_means([{"net": "a", "error": value}], ["net"], ["error"])[1][1] == cell


@pytest.mark.parametrize(
    ("by", "values", "where", "said"),
    [
        (["network"], ["error"], None, "no row of 4 has network; columns: averaged, error, net"),
        (["net"], ["loss"], None, "has loss"),
        (["net"], ["error"], {"part": "c"}, "where {'part': 'c'}"),
    ],
)
def test_a_table_that_would_be_empty_says_what_there_is(
    by: list[str], values: list[str], where: dict[str, str] | None, said: str
) -> None:
    with pytest.raises(ValueError, match="no row of 4 has") as error:
        table_of_means(ROWS, by, values, where)
    assert said in str(error.value)


def test_every_measured_file_has_the_script_that_wrote_it() -> None:
    scripts = {script.name: script for script in list_scripts(ROOT)}
    files = {file.stem for file in (ROOT / "book/results").glob("*.json")} - {"runs"}
    assert files <= set(scripts)
    for name in files:
        about = read_results(ROOT / f"book/results/{name}.json")
        assert scripts[name].measured.startswith(about["date"])
        assert machine_name(about["machine"]) in scripts[name].measured
    for script in scripts.values():
        text = (ROOT / f"scripts/{script.name}.py").read_text(encoding="utf-8")
        assert script.command in text, "the script's own text names the same command"
        assert script.does.endswith((".", ":"))


def test_the_page_shows_every_measured_file() -> None:
    page = (ROOT / "book/results.md").read_text(encoding="utf-8")
    for file in (ROOT / "book/results").glob("*.json"):
        if file.stem != "runs":
            assert f"{{results-table}} {file.stem}" in page


def test_no_result_was_measured_on_changed_files_with_a_trial_profile() -> None:
    for file in (ROOT / "book/results").rglob("*.json"):
        if file.stem == "runs":
            continue
        about = json.loads(file.read_text(encoding="utf-8"))
        assert about["settings"].get("profile") != "smoke"
        assert about["commit"] != "unknown"
        assert about["rows"]


def test_the_list_names_commands_and_says_what_is_missing(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["results", "list", "--root", str(ROOT)])
    assert "python scripts/board.py --out book/results/board.json" in listed.output
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "speed.py").write_text('"""Measure speed."""\n')
    listed = CliRunner().invoke(app, ["results", "list", "--root", str(tmp_path)])
    assert "speed: Measure speed." in listed.output
    assert "not measured yet" in listed.output


def test_without_a_checkout_the_list_says_so(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["results", "list", "--root", str(tmp_path)])
    assert listed.exit_code == 1
    assert "measuring needs a checkout" in listed.output
