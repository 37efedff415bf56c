"""A training that is killed and resumed ends as if nothing had happened."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed_work
import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from unet_tutorial import UNet
from unet_tutorial.checkpoints import CheckpointError, read_checkpoint, write_checkpoint
from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.training import fit

CONFIG = dataclasses.replace(
    distributed_work.CONFIG, steps=60, batch_size=2, validate_every=20, snapshot_every=30
)
OPTIONS = {"base_channels": 4, "depth": 2, "norm": "batch", "dropout": 0.2}

# A process that trains in a child of its own for each line that it reads: importing PyTorch ten
# times would take longer than all the training.
SCRIPT = """
import os, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from test_checkpoints import CONFIG, network
from unet_tutorial.datasets import load
from unet_tutorial.training import fit
data = load("membranes", n_images=4, size=64)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        fit(network(), data, CONFIG, report=None, checkpoint=line.strip())
        os._exit(0)
    print("child", child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(1, 2, **OPTIONS)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return load("membranes", n_images=4, size=64)


@pytest.fixture(scope="module")
def undisturbed(data: SegmentationData) -> dict[str, torch.Tensor]:
    return fit(network(), data, CONFIG, report=None).model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_killed_at_ten_moments_it_ends_with_the_same_weights(
    tmp_path: Path, data: SegmentationData, undisturbed: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "state.safetensors"
    chance = random.Random(0)
    nursery = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert nursery.stdin
    assert nursery.stdout
    reached = []
    for _ in range(10):
        before = file.stat().st_ino if file.exists() else 0
        print(file, file=nursery.stdin, flush=True)
        while not (line := nursery.stdout.readline()).startswith("child"):
            assert line, "the process died"  # what the data say of themselves
        while not file.exists() or file.stat().st_ino == before:
            time.sleep(0.002)  # until a step was written
        time.sleep(chance.uniform(0, 0.08))
        os.kill(int(line.split()[1]), signal.SIGKILL)
        assert nursery.stdout.readline() == "gone\n"
        tensors, _ = read_checkpoint(file)
        reached.append(len(tensors["losses"]))
    nursery.stdin.close()
    nursery.wait(timeout=30)
    assert reached == sorted(reached)
    assert 0 < reached[-1] < CONFIG.steps, "killed in the middle of the training"
    result = fit(network(seed=1), data, CONFIG, report=None, checkpoint=file)
    assert same(result.model.state_dict(), undisturbed)
    assert result.steps_done == CONFIG.steps
    assert [scores.step for scores in result.validations] == [20, 40, 60]
    assert [step for step, _ in result.snapshots] == [30, 60]


def test_a_finished_training_is_not_trained_again(
    tmp_path: Path, data: SegmentationData, undisturbed: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "deep" / "state.safetensors"
    first = fit(network(), data, CONFIG, report=None, checkpoint=file)
    lines: list[str] = []
    again = fit(network(seed=1), data, CONFIG, report=lines.append, checkpoint=file)
    assert same(again.model.state_dict(), undisturbed)
    assert again.losses == first.losses
    assert again.learning_rates == first.learning_rates
    assert lines == [f"going on after step 60 of 60, from {file}"]
    assert not list(file.parent.glob("*.part"))


def test_bfloat16_and_channels_last_resume_alike(tmp_path: Path, data: SegmentationData) -> None:
    config = dataclasses.replace(CONFIG, steps=12, precision="bfloat16", snapshot_every=0)
    whole = fit(network(), data, config, report=None).model.state_dict()
    file = tmp_path / "state.safetensors"

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    assert fit(network(), data, config, report=stop_once(stop), checkpoint=file).interrupted
    result = fit(network(seed=2), data, config, report=None, checkpoint=file)
    assert same(result.model.state_dict(), whole)


def stop_once(stop):  # type: ignore[no-untyped-def]
    """Interrupt at the sixth report, and let the words about it pass."""
    calls = []

    def report(line: str) -> None:
        calls.append(line)
        if len(calls) == 6:
            stop(line)

    return report


def test_other_settings_and_other_networks_are_refused(
    tmp_path: Path, data: SegmentationData
) -> None:
    file = tmp_path / "state.safetensors"
    short = dataclasses.replace(CONFIG, steps=2)
    fit(network(), data, short, report=None, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"other settings \(learning_rate 0.003, now 0.1\)"):
        fit(
            network(),
            data,
            dataclasses.replace(short, learning_rate=0.1),
            report=None,
            checkpoint=file,
        )
    with pytest.raises(CheckpointError, match="weights of another network"):
        fit(UNet(1, 2, base_channels=2, depth=2), data, short, report=None, checkpoint=file)
    assert file.read_bytes() == before


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none")
    (tmp_path / "text").write_text("hello, this is no safetensors file at all")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        read_checkpoint(tmp_path / "text")
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint of this package"):
        read_checkpoint(tmp_path / "other.safetensors")


def test_a_disk_that_fills_up_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.safetensors"
    write_checkpoint(file, {"x": torch.ones(1)}, {"step": 1})

    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("unet_tutorial._files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(file, {"x": torch.zeros(1)}, {"step": 2})
    assert read_checkpoint(file)[1] == {"step": 1}
