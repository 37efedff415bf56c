"""The networks that run in the pages are those of the result file, and small enough for a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import load_script

from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.export import NETWORKS, list_networks, load_network
from unet_tutorial.results import read_results
from unet_tutorial.widgets._host import network_script

ROOT = Path(__file__).resolve().parents[1]
ROWS = {row["network"]: row for row in read_results(ROOT / "book/results/networks.json")["rows"]}
NAMES = [f"{data}-{skip}" for data in ("isbi", "membranes") for skip in ("concat", "add", "none")]


@cache
def held_out(dataset: str) -> SegmentationData:
    return load(dataset).validation


def test_all_are_there() -> None:
    assert list_networks() == sorted(NAMES)
    assert sorted(ROWS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_can_load_it(name: str) -> None:
    file = (NETWORKS / f"{name}.safetensors").read_bytes()
    assert len(file) == ROWS[name]["bytes"] <= 1_000_000
    assert len(network_script(name, file)) <= 1_400_000
    model, about = load_network(name)
    assert model.options["skip"] == ROWS[name]["skip"]
    assert about["class_names"] == ["cell", "membrane"]
    assert about["scores"] == {key: ROWS[name][key] for key in about["scores"]}
    assert f"pixel error {ROWS[name]['pixel_error']:.3f}" in about["words"]
    assert f"{ROWS[name]['steps']:,} steps" in about["words"]


@pytest.mark.parametrize("name", NAMES)
def test_scored_again_it_is_as_good_as_the_result_file_says(name: str) -> None:
    scores = load_script("networks").score(load_network(name)[0], held_out(ROWS[name]["dataset"]))
    assert scores == pytest.approx({key: ROWS[name][key] for key in scores}, abs=0.01)


def test_skips_are_worth_something() -> None:
    for data in ("isbi", "membranes"):
        none = ROWS[f"{data}-none"]["pixel_error"]
        assert ROWS[f"{data}-concat"]["pixel_error"] < none
        assert ROWS[f"{data}-add"]["pixel_error"] < none


def test_the_script_makes_them(tmp_path: Path) -> None:
    script = load_script("networks")
    trial = {"profile": "smoke", "only": ["membranes-none"], "check_only": False}
    with pytest.raises(typer.BadParameter, match="another --out"):
        script.main(out=script.STORED, into=None, **trial)
    assert script.STORED == ROOT / "book/results/networks.json"
    out = tmp_path / "networks.json"
    script.main(out=out, into=None, **trial)
    model, about = load_network(tmp_path / "networks/membranes-none.safetensors")
    row = read_results(out)["rows"][0]
    assert row["bytes"] == (tmp_path / "networks/membranes-none.safetensors").stat().st_size
    assert model.options["skip"] == "none"
    assert about["steps"] == row["steps"] == 2
    # Another one by itself: the row of the first stays.
    script.main(out=out, into=None, **{**trial, "only": ["membranes-add"]})
    assert [row["network"] for row in read_results(out)["rows"]] == [
        "membranes-add",
        "membranes-none",
    ]


def test_a_measurement_that_dies_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("networks")
    make, made = script.make, []

    def dies(name: str, *rest: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(name)
        return make(name, *rest)

    monkeypatch.setattr(script, "make", dies)
    out, into = tmp_path / "networks.json", tmp_path / "networks"
    trial = {"profile": "smoke", "only": ["membranes-add", "membranes-none"], "check_only": False}
    with pytest.raises(KeyboardInterrupt):
        script.main(out=out, into=into, **trial)
    assert made == ["membranes-add"]
    assert not out.exists()
    assert not into.exists()
