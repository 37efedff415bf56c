"""Several processes train as one would, stop together, and write once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from distributed_work import CONFIG, SETTINGS, network
from PIL import Image

from unet_tutorial.checkpoints import read_checkpoint
from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.distributed import Team, _unsynchronize, launch
from unet_tutorial.runs import Run
from unet_tutorial.training import fit

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
    ),
]


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return load("membranes", n_images=4, size=64)


def run(
    *command: str, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def torchrun(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Start two processes on a port that is free."""
    # fmt: off
    return run(
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "0",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *command, **options,
    )
    # fmt: on


# --- two groups of their own: one that dies, one of the command line ------------------------------

KILLED = """
import os, signal, sys
from distributed_work import CONFIG, at_step, fit, load, network
model = network()
if os.environ["RANK"] == "1":
    at_step(model, 5, lambda output: os.kill(os.getpid(), signal.SIGKILL))
fit(model, load("membranes", n_images=4, size=64), CONFIG, report=None, checkpoint=sys.argv[1])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training one of whose processes was killed in its fifth step."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "script.py").write_text(KILLED)
    done = torchrun(str(folder / "script.py"), str(folder / "state"))
    assert done.returncode == 1, "one is dead, and the other does not wait for it"
    assert "SIGKILL" in done.stderr
    assert len(read_checkpoint(folder / "state")[0]["losses"]) == 4
    return folder / "state"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with a bright disk each, and its mask."""
    root = tmp_path_factory.mktemp("own")
    rows, columns = np.indices((40, 48))
    for index in range(4):
        disk = np.hypot(rows - 15 - 2 * index, columns - 20) < 8
        for name, pixels in (("images", 40 + 150 * disk), ("masks", 255 * disk)):
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A run that two processes have written; what they said is beside it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    # fmt: off
    done = torchrun(
        "-m", "unet_tutorial", "train", "--images", str(images / "images"), "--masks",
        str(images / "masks"), "--out", str(out), "--steps", "3", "--device", "cpu",
    )
    # fmt: on
    assert done.returncode == 0, done.stderr
    out.with_name("said").write_text(done.stdout, encoding="utf-8")
    return out


def test_the_command_line_writes_one_run(trained: Path) -> None:
    names = sorted(path.name for path in trained.iterdir())
    assert names == ["model.safetensors", "report.html", "run.json"]
    about = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert about["status"] == "finished"
    assert about["machine"]["processes"] == 2
    assert len(about["curves"]["loss"]) == 3
    assert about["scores"]["dice"].keys() == {"foreground"}
    assert "2 processes" in (trained / "report.html").read_text(encoding="utf-8")
    assert Run.load(trained).model.num_classes == 2
    said = trained.with_name("said").read_text(encoding="utf-8")
    for once in ("4 images of", "shared by 2 processes", "step    3/3", "% of the", "Use it:"):
        assert said.count(once) == 1, said


# --- one group that does everything, since starting one takes longer than training in it ----------


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory, killed: Path, trained: Path, images: Path
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("everything")
    script = folder / "script.py"
    script.write_text(
        "import pathlib, sys, distributed_work\n"
        "distributed_work.everything(*map(pathlib.Path, sys.argv[1:]))\n"
    )
    done = torchrun(str(script), *map(str, (folder, killed, trained, images)))
    assert done.returncode == 0, done.stderr
    assert not (folder / "state1").exists(), "only the first process writes"
    return [torch.load(folder / f"seen{rank}", weights_only=False) for rank in (0, 1)]


def far(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_end_with_the_weights_of_one(
    seen: list[dict[str, Any]], data: SegmentationData, name: str
) -> None:
    config, options = SETTINGS[name]
    alone = fit(network(**options), data, config, report=None)
    first, second = (one[name] for one in seen)
    assert same(first["weights"], second["weights"])
    assert far(first["weights"], alone.model.state_dict()) <= 1e-5
    assert far(network(**options).state_dict(), alone.model.state_dict()) > 1e-3, "it has learned"
    assert first["losses"] == second["losses"] == pytest.approx(alone.losses, abs=1e-6)
    assert not first["training"]
    assert not second["training"]


def test_only_the_first_process_scores_and_reports(seen: list[dict[str, Any]]) -> None:
    first, second = (one["plain"] for one in seen)
    assert first["validations"] == first["snapshots"] == [4, 8]
    assert len(first["lines"]) == 8
    assert second["validations"] == second["snapshots"] == second["lines"] == []


def test_what_would_be_no_training_is_refused_in_every_process(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert one["odd"].startswith("ValueError: batch_size 3 cannot be shared by 2 processes")
        assert "for instance 4" in one["odd"]
        assert one["own seed"].startswith("ValueError: process 1 has other settings")
        assert one["own images"].startswith("ValueError: process 1 has other images")


def test_a_loss_that_is_no_number_in_one_process_stops_both(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["not finite"] == seen[1]["not finite"]
    assert seen[0]["not finite"].startswith("NonFiniteLossError: the loss became nan at step 3")


def test_interrupted_in_one_process_both_stop_after_that_step(seen: list[dict[str, Any]]) -> None:
    first, second = (one["stopped"] for one in seen)
    assert first["interrupted"]
    assert second["interrupted"]
    assert len(first["losses"]) == len(second["losses"]) == 5
    assert same(first["weights"], second["weights"])


def test_resumed_they_end_as_if_never_interrupted(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert len(one["resumed"]["losses"]) == CONFIG.steps
        assert same(one["resumed"]["weights"], one["undisturbed"]["weights"])
    assert seen[0]["resumed"]["validations"] == [4, 8]


def test_after_the_death_of_one_they_go_on_where_it_died(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert len(one["after death"]["losses"]) == CONFIG.steps
        assert same(one["after death"]["weights"], one["plain"]["weights"])


def test_the_command_line_says_an_error_once(seen: list[dict[str, Any]], trained: Path) -> None:
    for name, message in (
        ("finished", "a finished run, which is not written over"),
        ("missing", "no such folder"),
    ):
        assert [one[name][0] for one in seen] == [1, 1]
        assert sum(one[name][1].count(message) for one in seen) == 1, [one[name] for one in seen]
    assert json.loads((trained / "run.json").read_text())["status"] == "finished"


# --- from a notebook or a script ------------------------------------------------------------------

SCRIPT = """
import torch
from unet_tutorial.distributed import join, launch

def add(layer):
    with torch.no_grad():
        layer.weight += 1 + join().rank  # in place, in memory of its own
    # In one piece: the other process writes into the same pipe.
    print(f"process {join().rank} of {join().size}\\n", end="", flush=True)
    return layer

if __name__ == "__main__":
    layer = torch.nn.Linear(1, 1)
    before = layer.weight.item()
    after = launch(add, layer, processes=2).weight.item()
    print(layer.weight.item() == before, round(after - before, 4))
"""


def test_a_plain_script_launches_its_own_function(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run(str(script))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["True 1.0", "process 0 of 2", "process 1 of 2"]


# No file: as in a notebook, other processes cannot import what is defined here.
NOTEBOOK = """
import dataclasses, datetime, os, signal, sys, threading, time
import torch
torch.set_num_threads(2)
torch.ones(999, 999) @ torch.ones(999, 999)  # the parent has threads that a fork has not
from distributed_work import CONFIG, at_step, fit, load, network
from unet_tutorial import distributed
from unet_tutorial.distributed import TeamError, join, launch

data = load("membranes", n_images=4, size=64)

def train(**changes):
    return fit(network(), data, dataclasses.replace(CONFIG, **changes), report=None)

def dies():
    if join().rank == 1:
        os._exit(7)
    return train()

def freezes():
    if join().rank == 1:
        time.sleep(300)
    return train()

def waits():
    model = network()
    if join().rank == 0:
        at_step(model, 2, lambda output: os.kill(os.getppid(), signal.SIGINT))
    slow = dataclasses.replace(CONFIG, steps=100_000)
    result = fit(model, data, slow, report=None)
    return result.interrupted, result.steps_done < 1000

def failing(function, **keywords):
    started = time.monotonic()
    try:
        launch(function, processes=2, **keywords)
    except Exception as error:
        print(f"{function.__name__}: {type(error).__name__}: {error}".splitlines()[0])
    print("seconds", time.monotonic() - started, file=sys.stderr)

print("trained", launch(train, processes=2).steps_done)
failing(train, batch_size=5)
failing(dies)
distributed.TIMEOUT = datetime.timedelta(seconds=2)
failing(freezes)
distributed.TIMEOUT = datetime.timedelta(seconds=60)
print("stopped", *launch(waits, processes=2))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a process with a GPU is not forked")
def test_a_notebook_launches_what_is_written_in_it_and_nothing_hangs() -> None:
    started = time.monotonic()
    done = run("-c", NOTEBOOK)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("membranes")]
    assert said[0] == "trained 8", done.stderr
    assert said[1].startswith("train: ValueError: batch_size 5 cannot be shared by 2 processes")
    assert said[2].startswith("dies: ")
    assert said[3].startswith("freezes: ")
    assert said[4] == "stopped True True"
    assert time.monotonic() - started < 250, "nobody waits for a process that sleeps"


def test_what_cannot_be_launched_is_said(data: SegmentationData) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        launch(fit, network(), data, processes=0)
    with pytest.raises(ValueError, match="top level of a module"):
        launch(lambda: 3, processes=2)


# --- without a group ------------------------------------------------------------------------------


def test_shares_are_the_batch_and_gathering_is_the_identity_alone() -> None:
    batch = torch.rand(6, 1, 2, 2)
    shares = [Team(rank=rank, size=3).share(batch) for rank in range(3)]
    assert torch.equal(torch.cat(shares), batch)
    assert Team().gather(batch) is batch
    assert [Team(size=3).round_up(size) for size in (1, 3, 8)] == [3, 3, 9]


def test_devices_of_several_processes_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    team = Team(rank=1, size=4, local_rank=1, local_size=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert team.choose_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 processes on this machine, but 2 GPUs"):
        team.choose_device("auto")
    with pytest.raises(ValueError, match="'cuda:1' is not for 4 processes"):
        team.choose_device("cuda:1")


def test_synchronized_normalization_is_taken_out_again() -> None:
    model = network(norm="batch").train()
    before = str(model)
    model(torch.rand(2, 1, 32, 32))
    weights = dict(model.named_parameters())
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert "SyncBatchNorm" in str(model)
    _unsynchronize(model)
    assert str(model) == before
    assert same(model.state_dict(), expected)
    assert all(value is weights[name] for name, value in model.named_parameters())
    assert all(module.training for module in model.modules())
