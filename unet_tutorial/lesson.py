"""What every chapter begins with: its data, its device and its budget, by profile."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import nn

from unet_tutorial.datasets import SegmentationData, load
from unet_tutorial.devices import choose_device, choose_precision, usable_cores
from unet_tutorial.plots import apply_style
from unet_tutorial.profiles import PROFILES, Profile, fitting_profile
from unet_tutorial.training import TrainingResult, fit
from unet_tutorial.unet import UNet

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Lesson:
    """The setting of a chapter; made by `setup`.

    Attributes
    ----------
    profile : Profile
        Sizes and budget.
    data : SegmentationData
        Images, labels, and which are held out.
    seed : int
        Draws first weights, crops and turns.
    device : torch.device
        Where the chapter trains.
    """

    profile: Profile
    data: SegmentationData
    seed: int
    device: torch.device = field(default_factory=choose_device)

    @property
    def settings(self) -> dict[str, Any]:
        """What all trainings of this profile share, for the head of a result file."""
        config = self.profile.config
        return {
            "profile": self.profile.name,
            "base_channels": self.profile.base_channels,
            "steps": config.steps,
            "batch_size": config.batch_size,
            "crop_size": config.crop_size,
            "precision": choose_precision(self.device),
        }

    def build(self, network: type[Network] = UNet, **options: Any) -> Network:  # type: ignore[assignment]
        """Build a network for this data and profile, always with the same first weights.

        Parameters
        ----------
        network : type
            `unet_tutorial.UNet`, or one of the partial networks of `unet_tutorial.partial`.
        **options
            Options of that network; the profile sets ``base_channels``, and the notes' batch
            normalization is on, without which little happens in half a minute.

        Returns
        -------
        nn.Module
            An instance of ``network``.
        """
        torch.manual_seed(self.seed)
        settings = {"base_channels": self.profile.base_channels, "norm": "batch", **options}
        return network(self.data.in_channels, self.data.num_classes, **settings)

    def train(self, model: Any, **changes: Any) -> TrainingResult:
        """Train with the profile's budget.

        Parameters
        ----------
        model : UNet, or a network of `unet_tutorial.partial`
            From `build`; trained in place.
        **changes
            Fields of `unet_tutorial.training.TrainingConfig` that replace the profile's.

        Returns
        -------
        TrainingResult
        """
        steps = changes.get("steps", self.profile.config.steps)
        settings = {"seed": self.seed, "validate_every": max(1, steps // 4), **changes}
        settings["device"] = str(self.device)
        return fit(model, self.data, replace(self.profile.config, **settings))

    def require(
        self,
        what: str,
        value: float,
        *,
        at_most: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
    ) -> None:
        """Check in front of the reader that a result is good enough.

        Parameters
        ----------
        what : str
            Name of the result.
        value : float
            What was measured.
        at_most, at_least : mapping of str to float
            Limit by the name of the data set.

        Raises
        ------
        AssertionError
            If the result misses its limit. With profile ``smoke`` nothing is judged.
        """
        for limits, sign in ((at_most, "≤"), (at_least, "≥")):
            if not limits:
                continue
            limit = limits[self.data.name]
            holds = value <= limit if sign == "≤" else value >= limit
            if self.profile.name == "smoke":
                print(f"not judged (smoke): {what} {value:.3f}, asked {sign} {limit}")
                continue
            if not holds:
                raise AssertionError(
                    f"{what} is {value:.3f}, asked {sign} {limit} on {self.data.name}. If you "
                    "changed nothing, run the chapter again; else compare with the stored output"
                )
            print(f"✓ {what} {value:.3f} {sign} {limit}")


def setup(profile: str = "auto", dataset: str = "auto", seed: int = 0) -> Lesson:
    """Prepare a chapter: figures, data, device, budget. Prints what was chosen.

    Parameters
    ----------
    profile : {"auto", "cpu", "gpu", "small", "smoke"}
        ``"auto"`` asks the environment variable ``UNET_TUTORIAL_PROFILE``, then takes ``"gpu"``
        where there is one, ``"cpu"`` on a CPU with bfloat16 arithmetic, else ``"small"``.
    dataset : {"auto", "isbi2012", "membranes"}
        As in `unet_tutorial.datasets.load`.
    seed : int
        The one seed of the page.

    Returns
    -------
    Lesson

    Raises
    ------
    ValueError
        If the profile is unknown.

    Examples
    --------
    >>> lesson = setup("smoke", "membranes")
    membranes: ...
    profile smoke ...
    >>> lesson.build().options["base_channels"]
    4
    """
    device = choose_device()
    name = _asked_for(profile)
    if name == "auto":
        name = fitting_profile(device).name
    if name not in PROFILES:
        raise ValueError(f"profile must be 'auto' or one of {', '.join(PROFILES)}, got {name!r}")
    apply_style()
    _show_figures_as_jpeg()
    small = {"n_images": 6, "size": 128} if name == "smoke" else {}
    data = load(dataset, seed=seed, **small)  # type: ignore[arg-type]
    precision = choose_precision(device)
    where = f"{usable_cores()} CPU cores" if device.type == "cpu" else describe_gpu(device)
    print(f"profile {name} · seed {seed} · {where}, {precision} · torch {torch.__version__}")
    return Lesson(PROFILES[name], data, seed, device)


def setup_for_results(profile: str = "auto", dataset: str = "auto", seed: int = 0) -> Lesson:
    """Prepare a measurement that is to stand beside the stored ones: `setup`, and never ``small``.

    Parameters
    ----------
    profile : {"auto", "cpu", "gpu", "smoke"}
        ``"auto"`` takes ``"gpu"`` where there is one, else ``"cpu"``, however long that takes.
    dataset, seed
        As in `setup`.

    Returns
    -------
    Lesson

    Raises
    ------
    ValueError
        If the profile is unknown, or not one that results are measured with.

    Examples
    --------
    >>> setup_for_results("small")
    Traceback (most recent call last):
    ValueError: results are measured with profile 'cpu', 'gpu' or 'smoke', got 'small'
    """
    name = _asked_for(profile)
    if name == "small":
        raise ValueError("results are measured with profile 'cpu', 'gpu' or 'smoke', got 'small'")
    if name == "auto" and choose_device().type == "cpu":
        name = "cpu"
    return setup(name, dataset, seed)


def _asked_for(profile: str) -> str:
    """Let the environment say what ``"auto"`` is."""
    return os.environ.get("UNET_TUTORIAL_PROFILE") or profile if profile == "auto" else profile


def _show_figures_as_jpeg() -> None:
    """Let notebooks store figures as JPEG: the grain of micrographs makes large PNG files."""
    if "IPython" not in sys.modules or sys.modules["IPython"].get_ipython() is None:
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 85})


def describe_gpu(device: torch.device) -> str:
    """Name a GPU.

    Examples
    --------
    >>> describe_gpu(torch.device("mps"))
    'mps'
    """
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def show_source(thing: Any) -> None:
    """Print the source of a class or function of the package, without its docstrings.

    Parameters
    ----------
    thing : class or function
        What to show. The page prints what the tests test: they cannot drift apart.

    Examples
    --------
    >>> from unet_tutorial.widgets import style
    >>> show_source(style)
    def style() -> str:
        return script("widgets.css")
    """
    print(source_of(thing))


def show_part(thing: Any, first: str, before: str) -> None:
    """Print some lines of what `show_source` prints, from one up to another, moved to the left.

    Parameters
    ----------
    thing : class or function
        Whose source.
    first, before : str
        Words of the first line, and of the line before which to stop: each first occurrence.

    Raises
    ------
    ValueError
        If there is no such line.

    Examples
    --------
    >>> show_part(show_source, "print", "never there")
    Traceback (most recent call last):
    ValueError: no line of show_source has 'never there'
    >>> show_part(describe_gpu, "return", "def describe_gpu")
    Traceback (most recent call last):
    ValueError: no line of describe_gpu has 'def describe_gpu' after 'return'
    """
    lines = source_of(thing).splitlines()
    start = next((number for number, line in enumerate(lines) if first in line), None)
    if start is None or not any(before in line for line in lines):
        missing = first if start is None else before
        raise ValueError(f"no line of {thing.__name__} has {missing!r}")
    stop = next((n for n, line in enumerate(lines) if n > start and before in line), None)
    if stop is None:
        raise ValueError(f"no line of {thing.__name__} has {before!r} after {first!r}")
    print(textwrap.dedent("\n".join(lines[start:stop])).rstrip())


def source_of(thing: Any) -> str:
    """Return what `show_source` prints.

    Examples
    --------
    >>> source_of(describe_gpu).splitlines()[0]
    'def describe_gpu(device: torch.device) -> str:'
    """
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    drop: set[int] = set()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            drop.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
            following = (text.end_lineno or text.lineno) + 1
            if following <= len(lines) and not lines[following - 1].strip():
                drop.add(following)
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in drop)
