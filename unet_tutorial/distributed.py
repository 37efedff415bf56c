"""Several processes train one network: each on its share of every batch.

A launcher starts the processes, `torchrun` or another that sets the same variables, and
`launch` from a notebook. `unet_tutorial.training.fit` joins them to a team by itself. Chapter 6
explains it.

Three things make the training that of one process. Every process draws the same crops and sends
its share of them through the network. The answers are gathered before the loss, so that the loss
is that of the whole batch, whatever it averages over (Dice and weight maps are no means of
means). And PyTorch's `DistributedDataParallel` adds up the gradients, so that all take the same
step. What remains are roundings, drop-out, whose chance is each process's own, and batch
normalization on CPUs, see `Team.training`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from unet_tutorial.datasets import SegmentationData
from unet_tutorial.devices import choose_device, usable_cores

__all__ = ["Team", "TeamError", "join", "launch"]

T = TypeVar("T")

# The longest that processes wait for each other. Death is noticed at once, by the launcher or by
# the connection that closes; this is for machines that have frozen. Since the others wait while
# the first one scores the held-out images, it must not be short.
TIMEOUT = timedelta(minutes=30)
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class TeamError(RuntimeError):
    """The processes cannot work together, or another one has failed and says why."""


@dataclass(frozen=True)
class Team:
    """The processes that train one network together, as one of them sees it.

    A process alone is a team of one: then every method gives back what it got.

    Attributes
    ----------
    rank : int
        This process's number, from 0.
    size : int
        Number of processes.
    local_rank, local_size : int
        The same among the processes of this machine.

    Examples
    --------
    >>> team = Team()
    >>> team.first, team.share(torch.arange(4)).tolist()
    (True, [0, 1, 2, 3])
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _control: Any = None  # a group for plain values, over the CPU whatever trains
    _store: Any = None  # the launcher's notice board

    @property
    def first(self) -> bool:
        """Whether this process scores, reports and writes files."""
        return self.rank == 0

    def choose_device(self, device: str = "auto") -> torch.device:
        """Take the device that was asked for: on GPUs, each process that of its own number.

        Parameters
        ----------
        device : str
            As in `unet_tutorial.devices.choose_device`.

        Returns
        -------
        torch.device

        Raises
        ------
        ValueError
            If there are fewer GPUs than processes, or the device has no way to share gradients.

        Examples
        --------
        >>> Team().choose_device("cpu")
        device(type='cpu')
        """
        if self.size == 1:
            return choose_device(device)
        if device == "auto" and not torch.cuda.is_available():
            device = "cpu"  # Apple's GPUs cannot exchange gradients
        chosen = choose_device(device)
        if chosen.type == "cpu":
            return chosen
        if chosen.type != "cuda" or chosen.index is not None:
            raise ValueError(
                f"device {device!r} is not for {self.size} processes: with 'cuda' each takes the "
                "GPU of its own number, with 'cpu' they share the processor"
            )
        if self.local_size > torch.cuda.device_count():
            raise ValueError(
                f"{self.local_size} processes on this machine, but {torch.cuda.device_count()} "
                "GPUs: start one process per GPU, or train on device 'cpu'"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def check(self, batch_size: int, settings: object, data: SegmentationData) -> None:
        """Refuse what would not be one training: before any step.

        Parameters
        ----------
        batch_size : int
            Crops per step, of all processes together.
        settings : object
            Whatever must be the same everywhere; its ``repr`` is compared.
        data : SegmentationData
            The images to train on; every process has all of them.

        Raises
        ------
        ValueError
            If the batch cannot be shared evenly, or settings or images differ between processes.

        Examples
        --------
        >>> from unet_tutorial.datasets import load
        >>> data = load("membranes", n_images=4, size=64)
        membranes: ...
        >>> Team(rank=1, size=2).check(3, "", data)
        Traceback (most recent call last):
        ValueError: batch_size 3 cannot be shared by 2 processes: it is the batch of all together,
        so choose a multiple, for instance 4
        """
        if self.size == 1:
            return
        if batch_size % self.size:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared by {self.size} processes: it is the "
                f"batch of all together, so choose a multiple, for instance "
                f"{self.round_up(batch_size)}"
            )
        own = (repr(settings), _checksum(data))
        everybodys: list[Any] = [None] * self.size
        dist.all_gather_object(everybodys, own, group=self._control)
        first = everybodys[0]
        for rank, theirs in enumerate(everybodys):
            if theirs != first:
                what = "settings" if theirs[0] != first[0] else "images"
                raise ValueError(
                    f"process {rank} has other {what} than process 0: give all the same settings, "
                    "seed and images, since fit shares out the crops by itself"
                )

    def round_up(self, batch_size: int) -> int:
        """Make a batch larger until it can be shared evenly.

        Examples
        --------
        >>> Team(size=3).round_up(8)
        9
        """
        return -(-batch_size // self.size) * self.size

    def share(self, batch: Tensor) -> Tensor:
        """Take this process's part of a batch.

        Parameters
        ----------
        batch : Tensor
            (N, ...), the same in every process; N is a multiple of ``size``.

        Returns
        -------
        Tensor
            (N / size, ...).

        Examples
        --------
        >>> Team(rank=1, size=2).share(torch.arange(4)).tolist()
        [2, 3]
        """
        length = len(batch) // self.size
        return batch[self.rank * length : (self.rank + 1) * length]

    def gather(self, share: Tensor) -> Tensor:
        """Put the parts of a batch together again, so that all know the whole.

        The gradient of the result goes to this process's own part only, ``size`` times as large:
        `DistributedDataParallel` takes the mean over the processes where the gradient of a loss
        over the whole batch is the sum.

        Parameters
        ----------
        share : Tensor
            (N / size, ...), of the same shape in every process.

        Returns
        -------
        Tensor
            (N, ...), in float32, the same values in every process.

        Examples
        --------
        >>> Team().gather(torch.ones(2)).tolist()
        [1.0, 1.0]
        """
        if self.size == 1:
            return share
        share = share.float().contiguous()
        parts = [torch.empty_like(share) for _ in range(self.size)]
        dist.all_gather(parts, share.detach())
        if share.requires_grad:
            share.register_hook(lambda gradient: gradient * self.size)
        parts[self.rank] = share
        return torch.cat(parts)

    @contextlib.contextmanager
    def training(self, model: nn.Module) -> Iterator[nn.Module]:
        """Wrap a network so that its gradients are those of all processes, and unwrap it.

        All begin with the first process's weights. On GPUs batch normalization counts the pixels
        of the whole batch (`torch.nn.SyncBatchNorm`); on CPUs, where PyTorch has no such layer,
        each process normalizes its own share, and the stored statistics are the first one's.

        Within, a Ctrl-C only leaves a note, which `stop_if_asked` reads.

        Parameters
        ----------
        model : torch.nn.Module
            On its device, in training mode.

        Yields
        ------
        torch.nn.Module
            What to call instead of the network.

        Examples
        --------
        >>> layer = nn.Conv2d(1, 1, 3)
        >>> with Team().training(layer) as network:
        ...     network is layer
        True
        """
        if self.size == 1:
            yield model
            return
        device = next(model.parameters()).device
        ids = None
        if device.type == "cuda":
            ids = [device]
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        try:
            with _note_interrupts():
                yield nn.parallel.DistributedDataParallel(model, device_ids=ids)
            for buffer in model.buffers():  # the last step's statistics: all get the first one's
                dist.broadcast(buffer, src=0)
        finally:
            _unsynchronize(model)

    def stop_if_asked(self) -> None:
        """Stop all processes after the same step, where one of them was interrupted.

        Raises
        ------
        KeyboardInterrupt
            In every process.

        Examples
        --------
        >>> Team().stop_if_asked()  # alone, a KeyboardInterrupt comes by itself
        """
        if self.size == 1:
            return
        asked = torch.tensor(int(_interrupted.is_set()))
        dist.all_reduce(asked, group=self._control)
        if asked:
            raise KeyboardInterrupt

    def from_first(self, function: Callable[[], T]) -> T:
        """Let the first process do something, and tell the others what came out.

        Parameters
        ----------
        function : callable
            Called without arguments, in the first process only.

        Returns
        -------
        object
            What it returned, in every process.

        Raises
        ------
        TeamError
            In the others, if it raised; the first process raises what it raised.

        Examples
        --------
        >>> Team().from_first(lambda: 3)
        3
        """
        if self.size == 1:
            return function()
        answer: list[Any] = [None, ""]
        failure: BaseException | None = None
        if self.first:
            try:
                answer[0] = function()
            except BaseException as error:  # an interrupt too: the others are waiting
                failure, answer[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(answer, src=0, group=self._control)
        if failure is not None:
            raise failure
        if answer[1]:
            raise TeamError(f"process 0 has stopped: {answer[1]}")
        return answer[0]

    def chance(self, device: torch.device) -> dict[str, Tensor]:
        """Collect the sources of chance of the other processes, for a checkpoint.

        They draw drop-out. The first one's is among the training's own state.

        Returns
        -------
        dict of str to Tensor
            By ``chance.torch.<rank>`` and, on GPUs, ``chance.cuda.<rank>``; the same everywhere.

        Examples
        --------
        >>> Team().chance(torch.device("cpu"))
        {}
        """
        if self.size == 1:
            return {}
        own = {"torch": torch.get_rng_state()}
        if device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state()
        everybodys: list[Any] = [None] * self.size
        dist.all_gather_object(everybodys, own, group=self._control)
        return {
            f"chance.{name}.{rank}": state
            for rank, states in enumerate(everybodys)
            if rank
            for name, state in states.items()
        }

    def restore_chance(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back this process's own source of chance, after the first one's has been.

        Where the checkpoint is that of a smaller team, a new one is drawn from the first one's.

        Examples
        --------
        >>> Team().restore_chance({})
        """
        if self.first:
            return
        if f"chance.torch.{self.rank}" in tensors:
            torch.set_rng_state(tensors[f"chance.torch.{self.rank}"])
            if f"chance.cuda.{self.rank}" in tensors and torch.cuda.is_available():
                torch.cuda.set_rng_state(tensors[f"chance.cuda.{self.rank}"])
        else:
            torch.manual_seed(int(torch.randint(2**31, ())) + self.rank)

    def first_to_say(self, message: str) -> bool:
        """Tell whether nobody has said this yet: what goes wrong everywhere is said once.

        Examples
        --------
        >>> Team().first_to_say("no such folder")
        True
        """
        if self.size == 1:
            return True
        try:
            return self._store.add(f"said/{zlib.crc32(message.encode())}", 1) == 1
        except Exception:  # nobody holds the board any more: better twice than never
            return True


_team: Team | None = None
_interrupted = threading.Event()


def join() -> Team:
    """Join the processes that a launcher has started, or be alone.

    The launcher's variables ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` say
    with whom: `torchrun` sets them, and Accelerate's launcher too. A process group that exists
    already is used. Joining again returns the same team.

    Returns
    -------
    Team

    Examples
    --------
    >>> join().size  # nothing has launched this
    1
    """
    global _team
    if _team is None:
        if dist.is_available() and dist.is_initialized():
            _team = _form()
        elif int(os.environ.get("WORLD_SIZE", "1")) > 1 and all(v in os.environ for v in VARIABLES):
            store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
            _team = _found(store, rank, size)
    return _team or Team()


def _found(store: Any, rank: int, size: int) -> Team:
    """Make a process group."""
    # Plain values and CPU tensors go by gloo, those of GPUs by nccl.
    with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if with_gpus else "gloo",
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    atexit.register(_leave)
    return _form(dist.PrefixStore("unet_tutorial", store))


def _form(store: Any = None) -> Team:
    """Make a team of the process group that there is."""
    rank, size = dist.get_rank(), dist.get_world_size()
    control = dist.new_group(backend="gloo", timeout=TIMEOUT)
    machines: list[Any] = [None] * size
    dist.all_gather_object(machines, socket.gethostname(), group=control)
    here = [other for other in range(size) if machines[other] == machines[rank]]
    # The launcher knows best: containers of one machine may have the same name or different ones.
    local_rank = int(os.environ.get("LOCAL_RANK", here.index(rank)))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", len(here)))
    if store is None:
        store = dist.PrefixStore("unet_tutorial", dist.HashStore())
    return Team(rank, size, local_rank, local_size, control, store)


def _leave() -> None:
    global _team
    _team = None
    if dist.is_initialized():
        dist.destroy_process_group()


def _checksum(data: SegmentationData) -> int:
    value = 0
    for image, labels in zip(data.images, data.labels, strict=True):
        value = zlib.crc32(np.ascontiguousarray(image).tobytes(), value)
        value = zlib.crc32(np.ascontiguousarray(labels).tobytes(), value)
    return value


def _unsynchronize(model: nn.Module) -> None:
    """Put ordinary batch normalization back, with the same weights and statistics."""
    for name, child in model.named_children():
        _unsynchronize(child)
        if isinstance(child, nn.SyncBatchNorm):
            plain = nn.BatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
            plain.weight, plain.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(plain, buffer, getattr(child, buffer))
            setattr(model, name, plain.train(child.training))


@contextlib.contextmanager
def _note_interrupts() -> Iterator[None]:
    """Let Ctrl-C leave a note: processes that stop at different places wait for each other."""
    _interrupted.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: _interrupted.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- from a notebook ------------------------------------------------------------------------------


def launch(
    function: Callable[..., T],
    /,
    *arguments: Any,
    processes: int | None = None,
    **keywords: Any,
) -> T:
    """Call a function in several new processes of this machine that are a team.

    ``launch(fit, model, data, config)`` trains on all GPUs from a notebook or a script. It stands
    on PyTorch's own `torch.multiprocessing.start_processes`. For several machines, and for
    trainings of hours, use `torchrun`.

    Parameters
    ----------
    function : callable
        Called in every process; one that can be imported, such as `unet_tutorial.training.fit`,
        or stands in a script below whose ``if __name__ == "__main__":`` this is called. One that
        is written in a notebook works too, as long as no GPU is there and the system can fork a
        process (Linux); each process then has one thread.
    *arguments, **keywords
        For the function. Each process gets a copy: a model that is passed in stays as it is, the
        trained one is in the result.
    processes : int, optional
        By default one per GPU, and one without.

    Returns
    -------
    object
        What the function returned in the first process, with its tensors on the CPU.

    Raises
    ------
    ValueError
        If ``processes`` is below 1, or the function cannot reach the other processes.
    TeamError
        If a process died. An error that the function raised is raised here again, once.
    KeyboardInterrupt
        After Ctrl-C, if the function did not return; `fit` does, with what there is by then.

    Examples
    --------
    >>> from unet_tutorial import UNet
    >>> from unet_tutorial.datasets import load
    >>> from unet_tutorial.training import TrainingConfig, fit
    >>> data = load("membranes", n_images=4, size=64)
    membranes: ...
    >>> model = UNet(1, 2, base_channels=2, depth=2)
    >>> config = TrainingConfig(steps=2, batch_size=2, crop_size=32, device="cpu")
    >>> launch(fit, model, data, config, report=None, processes=2).steps_done
    2
    """
    processes = torch.cuda.device_count() or 1 if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    method = _start_method(function)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task: Any = (function, arguments, keywords)
        if method == "spawn":
            # In a file, not through multiprocessing: that would let all train the same memory.
            try:
                torch.save(task, folder / "task")
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"the function or an argument cannot be sent to other processes ({error}): "
                    "define it at the top level of a module, and pass plain values, data, models"
                ) from error
            task = None
        context = mp.start_processes(
            _work,
            (processes, folder, task),
            nprocs=processes,
            join=False,
            start_method=method,
        )
        _wait(context, folder)
        if not (folder / "result").exists():
            raise KeyboardInterrupt
        return torch.load(folder / "result", map_location="cpu", weights_only=False)


def _start_method(function: Callable[..., Any]) -> str:
    """Choose how to start: new processes import the function, unless only a notebook has it."""
    in_notebook = not hasattr(sys.modules["__main__"], "__file__")
    if getattr(function, "__module__", None) != "__main__" or not in_notebook:
        return "spawn"
    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        raise ValueError(
            f"{getattr(function, '__name__', function)} is written in this notebook, where other "
            "processes cannot find it: write it into a file and import it from there, or pass "
            "unet_tutorial.training.fit itself"
        )
    return "fork"


def _work(rank: int, size: int, folder: Path, task: Any) -> None:
    """Be one of the processes."""
    global _team
    # A forked process hangs in its first parallel loop if its parent had threads for these.
    torch.set_num_threads(max(1, usable_cores() // size) if task is None else 1)
    _team = None
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    try:
        function, arguments, keywords = task or torch.load(folder / "task", weights_only=False)
        if size > 1:
            _team = _found(dist.FileStore(str(folder / "store"), size), rank, size)
        value = function(*arguments, **keywords)
        if rank == 0:
            try:
                torch.save(value, folder / "result.part")
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"what the function returned cannot be sent back ({error}): return plain "
                    "values, tensors, models, results"
                ) from error
            os.replace(folder / "result.part", folder / "result")
    except Exception as error:
        with contextlib.suppress(Exception):  # not everything can be sent
            (folder / f"error{rank}").write_bytes(pickle.dumps(error))
        raise
    finally:
        _leave()


def _wait(context: mp.ProcessContext, folder: Path) -> None:
    """Wait until all have ended; pass on a first Ctrl-C, and let a second one end them."""
    asked = 0
    try:
        while True:
            try:
                if context.join():
                    return
            except KeyboardInterrupt:
                asked += 1
                for process in context.processes:
                    if process.is_alive() and asked == 1:
                        os.kill(process.pid, signal.SIGINT)
                    elif process.is_alive():
                        process.terminate()
    except mp.ProcessRaisedException as error:
        raise _sent(folder / f"error{error.error_index}") or TeamError(str(error)) from error
    except mp.ProcessExitedException as error:
        if asked:
            raise KeyboardInterrupt from None
        raise TeamError(f"{error}; the others were stopped") from error
    finally:
        for process in context.processes:
            if process.is_alive():
                process.terminate()


def _sent(file: Path) -> Exception | None:
    try:
        return pickle.loads(file.read_bytes())
    except Exception:
        return None
