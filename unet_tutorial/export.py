"""Trained networks for other places: one small file, a page without a kernel, ONNX.

What leaves the training needs less than it: batch normalization is a multiplication and a sum by
then, which the convolutions before it can take over, and half precision is enough for weights.
Chapter 7 shows it and says what it costs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unet_tutorial._files import write_whole
from unet_tutorial.runs import ABOUT, CHECKPOINT, MODEL, REPORT, Run, RunError
from unet_tutorial.unet import UNet, fits

__all__ = [
    "EXPORTS",
    "NetworkFileError",
    "describe_input",
    "export_run",
    "fold_batch_norm",
    "list_networks",
    "load_network",
    "read_network",
    "write_network",
    "write_onnx",
]

FORMAT = "inside-unet network 1"
NETWORKS = Path(__file__).with_name("networks")  # what the book's pages run, by name
WeightPrecision = Literal["float16", "float32"]
_WEIGHTS = {"float16": torch.float16, "float32": torch.float32}
_OWN_NOTES = ("in_channels", "num_classes", "options")  # what the network says itself


class NetworkFileError(ValueError):
    """A file is no network of `write_network`."""


def fold_batch_norm(model: UNet) -> UNet:
    """Let the convolutions do what the batch normalization behind them does in evaluation mode.

    There the normalization is y = γ · (x − μ) / √(σ² + ε) + β with stored μ and σ²: a scale and a
    shift for each channel. A convolution with its weights times the scale and the shift as its
    bias gives the same, with one pass over the maps less.

    Parameters
    ----------
    model : UNet
        A trained network; it is left as it is.

    Returns
    -------
    UNet
        A copy with ``norm=None`` and the other options as they were, in evaluation mode, on the
        same device. A network without batch normalization gives a plain copy. The sums are taken
        in float64; what comes out differs by rounding.

    Raises
    ------
    ValueError
        If it is no `UNet`.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = UNet(1, 2, base_channels=4, depth=2, norm="batch").eval()
    >>> folded = fold_batch_norm(model)
    >>> image = torch.rand(1, 1, 32, 32)
    >>> folded.options["norm"], torch.allclose(folded(image), model(image), rtol=0, atol=1e-5)
    (None, True)
    """
    if not isinstance(model, UNet):
        raise ValueError(
            f"only a UNet can be folded and exported, got a {type(model).__name__}; take the "
            "network itself out of what wraps it (model.module, model._orig_mod)"
        )
    like = next(model.parameters())
    folded = _empty(model.in_channels, model.num_classes, {**model.options, "norm": None})
    # Layers come in the same order in both, only that one of them has no normalizations.
    places = (
        name
        for name, layer in folded.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    )
    weights: dict[str, Tensor] = {}
    name = ""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            name = next(places)
            weight, bias = _exact(layer.weight), _exact(layer.bias)
            weights[f"{name}.weight"] = weight
            weights[f"{name}.bias"] = weight.new_zeros(layer.out_channels) if bias is None else bias
        elif isinstance(layer, nn.BatchNorm2d):
            mean, variance = _exact(layer.running_mean), _exact(layer.running_var)
            scale = _exact(layer.weight) / (variance + layer.eps).sqrt()
            weights[f"{name}.weight"] *= scale[:, None, None, None]
            weights[f"{name}.bias"] = (weights[f"{name}.bias"] - mean) * scale + _exact(layer.bias)
    weights = {name: value.to(like.device, like.dtype) for name, value in weights.items()}
    folded.load_state_dict(weights, assign=True)
    return folded.eval()


def write_network(
    path: str | Path,
    model: UNet,
    *,
    about: Mapping[str, Any] | None = None,
    precision: WeightPrecision = "float16",
) -> None:
    """Write a network into one safetensors file that holds all that using it needs.

    Batch normalization is folded first, drop-out left away: the file is for use, not for going on
    with the training.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced, and appears whole or not at all. Its folder is made if it is
        missing.
    model : UNet
        A trained network.
    about : mapping of str to plain values, optional
        Whatever JSON can hold: title, class names, data set, scores.
    precision : {"float16", "float32"}
        Of the weights. Half precision takes two bytes a weight.

    Raises
    ------
    ValueError
        If a weight is not finite, or too large for float16; if ``about`` holds something that JSON
        cannot, or one of ``in_channels``, ``num_classes``, ``options``, which the network says
        itself; if it is no `UNet`. Nothing is written then.

    Notes
    -----
    Tensors have the names of ``UNet(...).state_dict()``. The file's metadata has one entry: its
    key is ``"inside-unet network 1"``, its value a JSON object with ``in_channels``,
    ``num_classes``, ``options`` (those of `UNet` but ``norm`` and ``dropout``) and ``about``'s
    entries beside them. The same network gives the same bytes.

    Examples
    --------
    >>> import tempfile
    >>> model = UNet(1, 2, base_channels=2, depth=1, norm="batch")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_network(Path(folder) / "a.safetensors", model, about={"title": "small"})
    ...     again, about = read_network(Path(folder) / "a.safetensors")
    >>> about, again.options["norm"]
    ({'title': 'small'}, None)
    """
    if precision not in _WEIGHTS:
        known = " or ".join(map(repr, _WEIGHTS))
        raise ValueError(f"precision must be {known}, got {precision!r}")
    folded = fold_batch_norm(model)
    taken = [name for name in _OWN_NOTES if name in (about or {})]
    if taken:
        raise ValueError(f"about holds {', '.join(taken)}, which the network says itself")
    options = {k: v for k, v in folded.options.items() if k not in ("norm", "dropout")}
    notes = dict(zip(_OWN_NOTES, (folded.in_channels, folded.num_classes, options), strict=True))
    weights = {}
    for name, value in folded.state_dict().items():
        # Contiguous: a file has one order of its values, memory may have another (channels last).
        weights[name] = value.cpu().contiguous().to(_WEIGHTS[precision])
        _check_range(name, value, weights[name], precision)
    # One entry: the order of several would change from one writing to the next.
    metadata = {FORMAT: _json({**notes, **(about or {})})}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda half: save_file(weights, half, metadata=metadata))


def read_network(path: str | Path) -> tuple[UNet, dict[str, Any]]:
    """Read a file of `write_network`.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    UNet, dict
        The network in evaluation mode, on the CPU, with float32 weights (exactly those of the
        file), and what was said ``about`` it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    NetworkFileError
        If it is something else: the message says what is known of it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no network file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                says = f"it says {', '.join(map(repr, sorted(metadata))) or 'nothing of itself'}"
                raise NetworkFileError(
                    f"{path} is a safetensors file, but no exported network ({FORMAT!r}): {says}. "
                    "A run folder becomes one with `unet-tutorial export RUN --to web`"
                )
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise NetworkFileError(f"{path} is no network file: {error}") from error
    try:
        notes = json.loads(metadata[FORMAT])
        in_channels, num_classes, options = (notes.pop(name) for name in _OWN_NOTES)
        model = _empty(in_channels, num_classes, options)
        model.load_state_dict(weights, assign=True)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        # Errors of json, of Python, of UNet and of torch: what is written does not fit together.
        raise NetworkFileError(
            f"{path}: its weights are not those of the network that it describes ({error})"
        ) from error
    return model.eval(), notes


def load_network(name: str | Path) -> tuple[UNet, dict[str, Any]]:
    """Read one of the networks that come with the book, or a file of one's own.

    Parameters
    ----------
    name : str or Path
        One of `list_networks`, or the path of a file: what has neither a folder nor a suffix is a
        name.

    Returns
    -------
    UNet, dict
        As `read_network`.

    Raises
    ------
    ValueError
        If there is no network of that name: the message lists those there are.
    FileNotFoundError, NetworkFileError
        As `read_network`.

    Examples
    --------
    >>> load_network("mona-lisa")
    Traceback (most recent call last):
    ...
    ValueError: there is no network 'mona-lisa'; ...
    """
    path, known = Path(name), list_networks()
    if str(name) in known:
        return read_network(NETWORKS / f"{name}.safetensors")
    if path.suffix or len(path.parts) != 1:
        return read_network(path)
    raise ValueError(
        f"there is no network {str(name)!r}; there are {', '.join(known) or 'none'}. A file of "
        f"your own needs its ending: {name}.safetensors"
    )


def list_networks() -> list[str]:
    """List the names of the networks that come with the book, for `load_network`.

    Examples
    --------
    >>> all(load_network(name)[0].in_channels for name in list_networks())
    True
    """
    return sorted(file.stem for file in NETWORKS.glob("*.safetensors"))


def write_onnx(path: str | Path, model: UNet, *, about: Mapping[str, Any] | None = None) -> None:
    """Write a network as ONNX, for runtimes that know nothing of PyTorch.

    Batch normalization is folded first. The network takes any number of images of any size that
    fits it: height and width in multiples of 2^depth, or what `unet_tutorial.unet.check_size` says
    of an unpadded network. A runtime does not check that; where a size does not fit it fails at a
    skip connection, or, without any, gives back fewer pixels. `unet_tutorial.inference.predict`
    mirrors images to a size that fits.

    Parameters
    ----------
    path : str or Path
        The file; it is replaced, and appears whole or not at all. Its folder is made if it is
        missing.
    model : UNet
        A trained network.
    about : mapping of str to plain values, optional
        For the file's ``metadata_props``: texts as they are, anything else as JSON. Of these,
        ``full_scale`` and ``even_brightness`` (as in `unet_tutorial.runs.Run`) change what the
        file says under ``"input"``: how an image must be scaled and how large it may be.

    Raises
    ------
    ModuleNotFoundError
        If the package ``onnx`` is missing.
    ValueError
        If a weight is not finite, ``about`` holds what JSON cannot, or it is no `UNet`.

    Notes
    -----
    Input ``image``, (batch, in_channels, height, width) float32; output ``logits``, (batch,
    num_classes, height, width), smaller by the network's margin where it is unpadded. Softmax over
    the classes gives probabilities. Opset 17, weights in float32.

    Examples
    --------
    >>> import tempfile
    >>> import onnx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_onnx(Path(folder) / "a.onnx", UNet(1, 2, base_channels=1, depth=1))
    ...     written = onnx.load(Path(folder) / "a.onnx")
    >>> [value.name for value in (*written.graph.input, *written.graph.output)]
    ['image', 'logits']
    """
    try:
        import onnx

        from unet_tutorial._onnx_graph import unet_graph
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"writing ONNX needs the package onnx ({error}): pip install onnx"
        ) from error
    folded = fold_batch_norm(model)
    for name, value in folded.state_dict().items():
        _check_range(name, value, value.float(), "float32")
    notes = {"input": describe_input(folded, about or {}), **(about or {})}
    texts = {k: v if isinstance(v, str) else _json(v) for k, v in notes.items()}
    graph = unet_graph(folded, texts)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda half: onnx.save(graph, half))


def describe_input(model: UNet, about: Mapping[str, Any]) -> str:
    """Say in one sentence what a network takes: values, scale, sizes.

    Parameters
    ----------
    model : UNet
        The network.
    about : mapping
        ``full_scale``: what 16-bit images are divided by. ``even_brightness``: whether every image
        is divided by its own brightness.

    Returns
    -------
    str

    Examples
    --------
    >>> describe_input(UNet(1, 2, base_channels=1), {})
    'gray values from 0 to 1: 8-bit images / 255; height and width one of 16, 32, 48, ...'
    """
    colors = {1: "gray values", 3: "red, green and blue"}
    what = colors.get(model.in_channels, f"{model.in_channels} channels")
    scales = ["8-bit images / 255"]
    if about.get("full_scale"):
        scales.append(f"16-bit images / {about['full_scale']}")
    if about.get("even_brightness"):
        scales.append("then each image / the value that 1 of 1000 of its pixels is above")
    sizes: list[int] = []
    side = 0
    while len(sizes) < 3:
        side += 1
        if fits(side, depth=model.depth, padding=model.padding):
            sizes.append(side)
    some = ", ".join(map(str, sizes))
    return f"{what} from 0 to 1: {', '.join(scales)}; height and width one of {some}, ..."


# --- a run of one's own -------------------------------------------------------------------------


def _to_web(path: Path, run: Run, image: Path | None) -> str:
    write_network(path, run.model, about=_about(run))
    return f"in half precision; use it: unet_tutorial.export.load_network({str(path)!r})"


def _to_onnx(path: Path, run: Run, image: Path | None) -> str:
    write_onnx(path, run.model, about=_about(run))
    return f'use it: onnxruntime.InferenceSession({str(path)!r}).run(None, {{"image": …}})'


def _to_page(path: Path, run: Run, image: Path | None) -> str:
    from unet_tutorial.widgets import LiveU, write_page  # widgets sit on top

    if image is None:
        raise ValueError("a page begins with an image: say --image FILE, such as one to segment")
    try:
        pixels = run.read(image)[0]
    except (ValueError, OSError) as error:
        raise ValueError(f"{image}: {error}") from error
    with TemporaryDirectory() as folder:
        network = Path(folder) / "network.safetensors"
        write_network(network, run.model, about=_about(run))
        write_page(path, LiveU.of(network, pixels), title=run.about["name"])
    return "open it in a browser: the network runs in it, and no picture leaves it"


# By what `--to` says: the name of the file in the run folder, and what writes it and says how to
# go on from there.
EXPORTS: dict[str, tuple[str, Callable[[Path, Run, Path | None], str]]] = {
    "web": ("network.safetensors", _to_web),
    "page": ("network.html", _to_page),
    "onnx": ("network.onnx", _to_onnx),
}


def export_run(
    run_folder: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    image: str | Path | None = None,
    overwrite: bool = False,
    report: Callable[[str], Any] = print,
) -> Path:
    """Write the network of a run folder for another place.

    Parameters
    ----------
    run_folder : str or Path
        What ``unet-tutorial train`` wrote.
    to : {"web", "page", "onnx"}
        ``"web"``: `write_network`, which the book's pages read. ``"page"``: a page in one file, in
        which the network runs, `unet_tutorial.widgets.LiveU`. ``"onnx"``: `write_onnx`.
    out : str or Path, optional
        The file; by default ``network.safetensors``, ``network.html`` or ``network.onnx`` in the
        run folder.
    image : str or Path, optional
        The image that a page begins with.
    overwrite : bool
        Whether a file that is there may be replaced; never one of the run's own.
    report : callable
        Gets one line: the file, its size, and what to do with it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If ``to`` is unknown, the file is there already, or a page has no image to begin with.
    RunError
        If it is no run folder, or its training has not been finished.
    """
    if to not in EXPORTS:
        raise ValueError(f"to={to!r} is not known; there are {', '.join(EXPORTS)}")
    run = Run.load(run_folder)
    if run.about["status"] != "finished":
        raise RunError(
            f"{run_folder}: its training was stopped after {run.about.get('steps_done')} of "
            f"{run.about['training']['steps']} steps; the same `unet-tutorial train` command goes "
            "on with it, then export it"
        )
    name, write = EXPORTS[to]
    path = Path(out) if out is not None else run.folder / name
    own = {(run.folder / one).resolve() for one in (MODEL, ABOUT, REPORT, CHECKPOINT)}
    if path.resolve() in own:
        raise ValueError(f"{path} belongs to the run: choose another name")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file, such as {path / name}")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path} is there already; choose another name, or allow it with --overwrite"
        )
    after = write(path, run, None if image is None else Path(image))
    kilobytes = path.stat().st_size / 1000
    report(f"{path}: {kilobytes:,.0f} kB, {_count(run.model)}; {after}")
    return path


def _count(model: UNet) -> str:
    """Count what the file holds, and say why it is less than what was trained."""
    before, after = (
        sum(weights.numel() for weights in one.parameters())
        for one in (model, fold_batch_norm(model))
    )
    folded = f" (of {before:,}: batch normalization is folded in)" if after < before else ""
    return f"{after:,} parameters{folded}"


def _about(run: Run) -> dict[str, Any]:
    """Take from ``run.json`` what whoever uses the network must know, or may ask."""
    return {
        "title": run.about["name"],
        "class_names": list(run.class_names),
        "dataset": run.about["data"]["name"],
        "full_scale": run.full_scale,
        "even_brightness": run.even,
        "steps": run.about["steps_done"],
        "scores": run.about["scores"],
    }


# --- what both kinds of files need ----------------------------------------------------------------


def _empty(in_channels: int, num_classes: int, options: Mapping[str, Any]) -> UNet:
    """Build a network whose weights have shapes and no values: nothing is drawn or filled."""
    with torch.device("meta"):
        return UNet(in_channels, num_classes, **options)


def _exact(values: Any) -> Any:
    """Copy to where there is float64, which not every device has."""
    return None if values is None else values.detach().cpu().to(torch.float64, copy=True)


def _check_range(name: str, value: Tensor, written: Tensor, precision: str) -> None:
    if not value.isfinite().all():
        raise ValueError(
            f"{name} holds values that are not finite (NaN or infinity): the training has failed, "
            "and there is nothing worth exporting"
        )
    if not written.isfinite().all():
        largest, limit = value.abs().max().item(), torch.finfo(written.dtype).max
        raise ValueError(
            f"{name} holds {largest:.4g}, and {precision} ends at {limit:.0f}: write it with "
            "precision='float32'"
        )


def _json(values: Any) -> str:
    try:
        return json.dumps(values, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"about must hold what JSON can (texts, numbers, lists, mappings): {error}"
        ) from error
