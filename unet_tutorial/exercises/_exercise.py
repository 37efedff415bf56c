"""The list of exercises, and what their verifiers share.

A chapter's module registers one verifier for each exercise::

    @exercise(
        "3.2",
        "A transposed convolution, written as a scatter",
        answer="a function scatter(small, stencil, stride) that returns the large map, a tensor",
        hint="Begin with zeros. Where does the value at row 2 set its stencil down?",
        shown="PyTorch's own layer does the same, with a stencil for every pair of channels.",
    )
    def _(answer: Any) -> None:
        scatter = expect_function(answer, "scatter(small, stencil, stride)")
        small, stencil = torch.rand(3, 4), torch.rand(2, 2)
        large = call(scatter, small, stencil, 2, tried="scatter(small, stencil, 2)")
        expect_close(large, ..., tried="scatter of 3×4 with a stencil of 2×2, stride 2")

It raises `Wrong`, mostly through the helpers below. A message says what was tried, what was
expected and what came instead; it never says how to do it. Verifiers may draw random numbers: they
always begin with the same seed, and the notebook's own are put back. They take less than a second.

An exercise in a notebook is three cells: ``exercise-3-2-task``, ``exercise-3-2`` with imports, the
stub (dots for what is to be written) and ``check("3.2", …)`` as its last line, and
``exercise-3-2-solution`` with a folded ``python`` block. Stub and solution stand there only;
``tests/test_exercises.py`` runs them.
"""

from __future__ import annotations

import dis
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHAPTERS = {
    0: "Context and localization",
    1: "Contracting path",
    2: "Bottleneck",
    3: "Expansive path",
    4: "Skip connections",
    5: "The paper's training",
    6: "A modern training",
    7: "Using it",
    8: "Pre-trained encoders",
}
REGISTRY: dict[str, Exercise] = {}

Verifier = Callable[[Any], None]


class Wrong(Exception):  # noqa: N818 - an answer that is not right yet is no error
    """What is wrong with an answer, in words for the one who gave it."""


class Unanswered(Wrong):
    """The stub is as it was, or a part of it."""


@dataclass(frozen=True)
class Exercise:
    """One exercise of the book.

    Attributes
    ----------
    number : str
        Chapter and place, such as ``"3.2"``.
    title : str
        A few words.
    answer : str
        What is to be handed to `check`: "a function …", "two numbers …".
    hint : str
        Where to look; does not give the answer away.
    shown : str
        What a right answer has shown.
    verify : callable
        Takes an answer, raises `Wrong`.
    """

    number: str
    title: str
    answer: str
    hint: str
    shown: str
    verify: Verifier = field(repr=False, compare=False)

    @property
    def chapter(self) -> int:
        """The chapter's number."""
        return int(self.number.split(".")[0])


def exercise(
    number: str, title: str, *, answer: str, hint: str, shown: str
) -> Callable[[Verifier], Verifier]:
    """Register a verifier; the arguments are the fields of `Exercise`.

    Raises
    ------
    ValueError
        If the number is taken, or is none of ``"3.1"``, ``"3.2"``, ….
    """
    chapter, _, place = number.partition(".")
    if not (chapter.isdecimal() and place.isdecimal() and int(chapter) in CHAPTERS):
        raise ValueError(f"an exercise's number is chapter.place such as '3.2', got {number!r}")
    if number in REGISTRY:
        raise ValueError(f"there are two exercises {number}")

    def register(verify: Verifier) -> Verifier:
        REGISTRY[number] = Exercise(number, title, answer, hint, shown, verify)
        return verify

    return register


# --- kinds of answers -----------------------------------------------------------------------------


def expect_answer(answer: Any, what: str = "") -> None:
    """Raise `Unanswered` where the stub's dots still stand.

    Examples
    --------
    >>> expect_answer(..., "the width")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Unanswered: The width is still open.
    """
    if answer is None or answer is ...:
        raise Unanswered(f"{_capital(what)} is still open." if what else "")


def expect_function(answer: Any, signature: str) -> Callable[..., Any]:
    """Return a function that takes as many arguments as asked.

    Parameters
    ----------
    answer : object
        What the reader gave.
    signature : str
        How it is called, such as ``"scatter(small, stencil, stride)"``.

    Raises
    ------
    Unanswered
        If the function does nothing at all.
    Wrong
        If it is something else, or takes another number of arguments.

    Examples
    --------
    >>> expect_function(torch.zeros(2, 2), "twice(x)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: A function twice(x) is expected, and you gave a tensor
    of shape 2×2. Give the function itself, without calling it.
    """
    expect_answer(answer)
    if inspect.isclass(answer):
        raise Wrong(f"A function {signature} is expected, and you gave the class {_name(answer)}.")
    if not callable(answer):
        raise Wrong(
            f"A function {signature} is expected, and you gave {describe(answer)}. Give the "
            "function itself, without calling it."
        )
    if _does_nothing(answer):
        raise Unanswered
    _expect_arguments(answer, signature)
    return answer


def expect_class(answer: Any, signature: str, base: type = nn.Module) -> type:
    """Return a class whose instances can be made as asked.

    Parameters
    ----------
    answer : object
        What the reader gave.
    signature : str
        How an instance is made, such as ``"Half(in_channels)"``.
    base : type
        What it must inherit from.

    Raises
    ------
    Unanswered
        If its ``forward`` is still the stub's, or its ``__init__`` does nothing.
    Wrong
        If it is something else.

    Examples
    --------
    >>> expect_class(nn.ReLU(), "Half(in_channels)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: The class Half(in_channels) is expected, and you gave
    an instance, of class ReLU. Give the class itself, without parentheses.
    """
    expect_answer(answer)
    if not inspect.isclass(answer):
        if isinstance(answer, nn.Module):
            given = f"an instance, of class {type(answer).__name__}"
        else:
            given = describe(answer)
        raise Wrong(
            f"The class {signature} is expected, and you gave {given}. Give the class itself, "
            "without parentheses."
        )
    if not issubclass(answer, base):
        raise Wrong(
            f"{_name(answer)} does not inherit from {base.__name__}: begin with "
            f"`class {_name(answer)}({base.__name__}):`."
        )
    own = vars(answer)
    if any(_does_nothing(own[name]) for name in ("forward", "__init__") if name in own):
        raise Unanswered
    _expect_arguments(answer, signature)
    return answer


def expect_parts(answer: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """Return the parts of an answer of several, such as ``(shape, parameters)``.

    Some may still be open: look at them in order, so that those before are told to be right.

    Raises
    ------
    Unanswered
        If all are open.
    Wrong
        If it is something else, or another number of parts.

    Examples
    --------
    >>> expect_parts((3, ...), ("height", "width"))
    (3, Ellipsis)
    >>> expect_parts(3, ("height", "width"))
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: Expected is (height, width), and you gave 3.
    """
    expect_answer(answer)
    listed = ", ".join(names)
    if not isinstance(answer, tuple | list):
        raise Wrong(f"Expected is ({listed}), and you gave {describe(answer)}.")
    if len(answer) != len(names):
        raise Wrong(
            f"Expected is ({listed}), {len(names)} parts, and you gave {len(answer)}: "
            f"{describe(answer)}."
        )
    if all(map(_is_open, answer)):
        raise Unanswered
    return tuple(answer)


# --- guesses: the message must not tell the right one ---------------------------------------------


def expect_number(
    value: Any,
    right: float,
    what: str,
    *,
    tolerance: float = 0.0,
    mistakes: Mapping[float, str] | None = None,
) -> None:
    """Compare a predicted number, without telling the right one.

    Parameters
    ----------
    value : object
        What the reader gave.
    right : float
        What it must be.
    what : str
        What the number is.
    tolerance : float
        How far off it may be.
    mistakes : mapping, optional
        For usual wrong numbers, what has led to them.

    Raises
    ------
    Wrong
        If it is no number, or another.

    Examples
    --------
    >>> expect_number(8192, 8224, "the number of parameters", mistakes={8192: "Weights alone."})
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: The number of parameters is not 8,192: too small.
    Weights alone.
    """
    expect_answer(value, what)
    what = _capital(what)
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(f"{what} must be one number, and you gave {describe(value)}.")
    if abs(value - right) <= tolerance:
        return
    if value != value:
        raise Wrong(f"{what} must be a number, and you gave nan.")
    reason = (mistakes or {}).get(value, "")
    size = "too small" if value < right else "too large"
    raise Wrong(f"{what} is not {_say(value)}: {size}. {reason}".rstrip())


def expect_guess(
    value: Any,
    right: Sequence[int],
    what: str,
    *,
    axes: Sequence[str] = ("channels", "height", "width"),
    mistakes: Mapping[tuple[int, ...], str] | None = None,
) -> None:
    """Compare a predicted shape, and name the axes that are wrong but not what they should be.

    Parameters
    ----------
    value : object
        What the reader gave: a tuple, list or torch.Size of integers.
    right : sequence of int
        What it must be.
    what : str
        Whose shape it is.
    axes : sequence of str
        Names of the axes.
    mistakes : mapping, optional
        For usual wrong shapes, what has led to them.

    Raises
    ------
    Wrong
        If it is no shape, or another.

    Examples
    --------
    >>> expect_guess((64, 40, 60), (32, 40, 60), "the large map")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: The large map is not 64×40×60: height and width are
    right, channels (64) are not.
    """
    expect_answer(value, f"the shape of {what}")
    form = f"({', '.join(axes)})"
    if not isinstance(value, tuple | list):
        raise Wrong(f"The shape of {what} must be written as {form}, you gave {describe(value)}.")
    if any(map(_is_open, value)):
        raise Unanswered(f"The shape of {what} is still open.")
    if any(isinstance(part, bool) or not isinstance(part, int) for part in value):
        raise Wrong(f"The shape of {what} must be whole numbers, you gave {describe(value)}.")
    if len(value) != len(axes):
        batch = " Leave the batch out." if len(value) == len(axes) + 1 == 4 else ""
        raise Wrong(
            f"The shape of {what} must be {len(axes)} numbers, {form}; you gave {len(value)}: "
            f"{shape_text(value)}.{batch}"
        )
    if tuple(value) == tuple(right):
        return
    good = [axis for axis, a, b in zip(axes, value, right, strict=True) if a == b]
    bad = [f"{axis} ({a})" for axis, a, b in zip(axes, value, right, strict=True) if a != b]
    verb = "are" if len(good) > 1 or good == ["channels"] else "is"
    rest = "are" if len(bad) > 1 or bad[0].startswith("channels") else "is"
    where = f"{' and '.join(good)} {verb} right, " if good else ""
    reason = (mistakes or {}).get(tuple(value), "")
    raise Wrong(
        f"{_capital(what)} is not {shape_text(value)}: {where}{' and '.join(bad)} {rest} not. "
        f"{reason}".rstrip()
    )


# --- what the reader's code does ------------------------------------------------------------------


def call(function: Callable[..., Any], *inputs: Any, tried: str, may_change: bool = False) -> Any:
    """Call the reader's code, and say so where it fails or changes what it was given.

    Parameters
    ----------
    function : callable
        A function, a class to be instantiated, or a module.
    *inputs
        Arguments; tensors and arrays are handed over as copies.
    tried : str
        The call in words or in Python, for messages.
    may_change : bool
        Whether it may write into its inputs.

    Returns
    -------
    object
        What it returned; not None.

    Raises
    ------
    Wrong
        Names the exception and the line of the reader's code, the input that was changed, or that
        nothing was returned.

    Examples
    --------
    >>> call(lambda x: x / 0, 1, tried="half(1)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: half(1) stopped with ZeroDivisionError: division by
    zero...
    >>> call(lambda x: x.add_(1), torch.zeros(2), tried="more(x)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: more(x) has changed its input: whoever calls it still
    needs that. Write into a new tensor.
    """
    given = [_copy(value) for value in inputs]
    try:
        result = function(*given)
    except (Exception, SystemExit) as error:
        raise Wrong(f"{tried} stopped with {what_went_wrong(error)}") from error
    changed = not all(_same(before, after) for before, after in zip(inputs, given, strict=True))
    if changed and not may_change:
        raise Wrong(
            f"{tried} has changed its input: whoever calls it still needs that. Write into a new "
            "tensor."
        )
    if result is None or result is ...:
        raise Wrong(f"{tried} returned nothing. Is a `return` missing?")
    return result


def what_went_wrong(error: BaseException) -> str:
    """Name an exception and the last line of the reader's own code on its way.

    Examples
    --------
    >>> what_went_wrong(KeyError("conv"))
    "KeyError: 'conv'."
    """
    words = " ".join(str(error).split())
    if len(words) > 300:
        words = words[:300] + " …"
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    said = said if said.endswith((".", "!", "?")) else f"{said}."
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    if own and own[-1].line:
        said += f"\nIt happened in your line {own[-1].lineno}: {own[-1].line.strip()}"
    return said


def expect_tensor(value: Any, tried: str) -> Tensor:
    """Return what came if it is a tensor.

    Examples
    --------
    >>> expect_tensor(np.zeros((2, 2)), "half(x)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: half(x): a torch tensor is expected, and a numpy array
    of shape 2×2 came.
    """
    if isinstance(value, Tensor):
        return value
    raise Wrong(f"{tried}: a torch tensor is expected, and {describe(value)} came.")


def expect_shape(value: Any, shape: Sequence[int], tried: str) -> Tensor:
    """Return what came if it is a tensor of this shape.

    Examples
    --------
    >>> expect_shape(torch.zeros(1, 4, 8, 8), (1, 2, 8, 8), "half(x)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: half(x): expected shape 1×2×8×8, got 1×4×8×8.
    """
    tensor = expect_tensor(value, tried)
    if tuple(tensor.shape) != tuple(shape):
        raise Wrong(f"{tried}: expected shape {shape_text(shape)}, got {shape_text(tensor.shape)}.")
    return tensor


def expect_close(value: Any, expected: Any, tried: str, *, tolerance: float = 1e-4) -> None:
    """Compare numbers, a tensor or an array with what the right answer gives for the same input.

    Parameters
    ----------
    value : object
        What came.
    expected : float, Tensor or numpy.ndarray
        What should have come; the value must be of the same kind and shape.
    tried : str
        The call, for messages.
    tolerance : float
        Largest difference.

    Raises
    ------
    Wrong
        Shows both where they are small, else the first place where they differ.

    Examples
    --------
    >>> expect_close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), "f(x)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: f(x): expected [1, 3], got [1, 2].
    """
    if isinstance(expected, Tensor):
        actual = expect_shape(value, expected.shape, tried).detach().cpu().double().numpy()
        wanted = expected.detach().double().numpy()
    elif isinstance(expected, np.ndarray):
        if isinstance(value, Tensor) or not isinstance(value, np.ndarray):
            raise Wrong(f"{tried}: a numpy array is expected, and {describe(value)} came.")
        if value.shape != expected.shape:
            raise Wrong(
                f"{tried}: expected shape {shape_text(expected.shape)}, got "
                f"{shape_text(value.shape)}."
            )
        actual, wanted = value.astype(float), expected.astype(float)
    else:
        value = plain_number(value)
        if not isinstance(value, int | float):
            raise Wrong(f"{tried}: one number is expected, and {describe(value)} came.")
        actual, wanted = np.asarray(float(value)), np.asarray(float(expected))
    if actual.size > 1 and np.isnan(actual).any() and not np.isnan(wanted).any():
        raise Wrong(f"{tried}: {np.isnan(actual).sum()} of {actual.size} values are nan.")
    far = ~np.isclose(actual, wanted, rtol=tolerance, atol=tolerance)
    if not far.any():
        return
    if wanted.size <= 20:
        raise Wrong(f"{tried}: expected {_grid(wanted)}, got {_grid(actual)}.")
    first = tuple(int(index) for index in np.argwhere(far)[0])
    raise Wrong(
        f"{tried}: {int(far.sum()):,} of {far.size:,} values differ. The first, at "
        f"{list(first)}: expected {_say(wanted[first])}, got {_say(actual[first])}."
    )


def plain_number(value: Any) -> Any:
    """Take the number out of a tensor or array that holds a single one; leave the rest alone.

    Examples
    --------
    >>> plain_number(torch.tensor([[3.0]])), plain_number(np.float32(2)), plain_number("3")
    (3.0, 2.0, '3')
    """
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value
    if isinstance(value, np.ndarray | np.generic):
        return value.item() if value.size == 1 else value
    return value


def expect_parameters(
    module: nn.Module, number: int, tried: str, *, mistakes: Mapping[int, str] | None = None
) -> None:
    """Count weights and biases.

    Parameters
    ----------
    module : nn.Module
        The reader's.
    number : int
        How many it should have.
    tried : str
        What was built, for messages.
    mistakes : mapping, optional
        For usual wrong counts, what has led to them.

    Raises
    ------
    Wrong
        If it has more or fewer.

    Examples
    --------
    >>> expect_parameters(nn.Conv2d(1, 8, 3), 72, "Conv(1, 8)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: Conv(1, 8): expected 72 parameters, got 80: 8 too many.
    """
    found = sum(weights.numel() for weights in module.parameters())
    if found != number:
        off = f"{found - number:,} too many" if found > number else f"{number - found:,} too few"
        reason = (mistakes or {}).get(found, "")
        raise Wrong(
            f"{tried}: expected {number:,} parameters, got {found:,}: {off}. {reason}".rstrip()
        )


def give_weights(reference: nn.Module, module: nn.Module, tried: str) -> None:
    """Give a reference the weights of the reader's module, by their shapes and order.

    Parameters
    ----------
    reference : nn.Module
        What the answer is compared with; changed in place. Running statistics are kept.
    module : nn.Module
        The reader's.
    tried : str
        What was built, for messages.

    Raises
    ------
    Wrong
        If the shapes of the weights differ, whatever their order.

    Examples
    --------
    >>> give_weights(nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1), "Half(8)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: Half(8): expected a weight of shape 2×8×1×1, and there
    is none. There are 4×8×1×1 (weight), 4 (bias).
    """
    left = list(module.named_parameters())
    listed = ", ".join(f"{shape_text(one.shape)} ({name})" for name, one in left) or "none"
    for kind, own in reference.named_parameters():
        place = next((k for k, (_, one) in enumerate(left) if one.shape == own.shape), None)
        if place is None:
            raise Wrong(
                f"{tried}: expected a {kind.split('.')[-1]} of shape {shape_text(own.shape)}, and "
                f"there is none{' left' if len(left) < listed.count('(') else ''}. There are "
                f"{listed}."
            )
        with torch.no_grad():
            own.copy_(left.pop(place)[1])
    if left:
        raise Wrong(f"{tried}: it has weights that are not expected: {left[0][0]}.")


def recognize(value: Any, mistakes: Mapping[str, Any], tried: str) -> None:
    """Name a usual mistake by what it makes of the same input.

    Parameters
    ----------
    value : object
        What came.
    mistakes : mapping of str to Tensor or numpy.ndarray
        A sentence for each mistake, and what comes of it.
    tried : str
        The call, for messages.

    Raises
    ------
    Wrong
        With that sentence, if the value is one of these.

    Examples
    --------
    >>> recognize(torch.ones(2), {"It is not halved.": torch.ones(2)}, "half(x)")
    Traceback (most recent call last):
    unet_tutorial.exercises._exercise.Wrong: half(x): It is not halved.
    """
    for sentence, wrong in mistakes.items():
        if isinstance(value, Tensor) and isinstance(wrong, Tensor):
            same = value.shape == wrong.shape and torch.allclose(
                value.detach().cpu().double(), wrong.detach().double(), rtol=1e-4, atol=1e-5
            )
        else:
            same = not isinstance(value, Tensor) and np.array_equal(value, wrong)
        if same:
            raise Wrong(f"{tried}: {sentence}")


# --- words ----------------------------------------------------------------------------------------


def describe(value: Any) -> str:
    """Name a value's kind, for messages.

    Examples
    --------
    >>> describe(torch.zeros(2, 3)), describe((1, 2)), describe(None)
    ('a tensor of shape 2×3', 'the tuple (1, 2)', 'None')
    """
    if value is None or value is ...:
        return str(value)
    if isinstance(value, Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, Tensor) else "a numpy array"
        return f"{kind} of shape {shape_text(value.shape)}"
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if isinstance(value, nn.Module):
        return f"a module of class {type(value).__name__}"
    if callable(value):
        return f"the function {_name(value)}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, bool | int | float | complex):
        return f"{value!r}"
    words = repr(value) if isinstance(value, tuple | list | dict | set) else ""
    kind = type(value).__name__
    article = "an" if kind[0] in "aeio" else "a"
    return f"the {kind} {words}" if 0 < len(words) <= 60 else f"{article} {kind}"


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as 2×3; of a single number, as "no axes".

    Examples
    --------
    >>> shape_text((64, 20, 30)), shape_text(())
    ('64×20×30', 'no axes')
    """
    return "×".join(map(str, shape)) or "no axes"


def _is_open(part: Any) -> bool:
    """Whether it is as the stub has it: dots, or a shape of dots."""
    if isinstance(part, tuple | list):
        return bool(part) and all(map(_is_open, part))
    return part is None or part is ...


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _say(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _grid(values: np.ndarray) -> str:
    if values.ndim == 0:
        return _say(float(values))
    return f"[{', '.join(map(_grid, values))}]"


def _name(value: Any) -> str:
    return getattr(value, "__name__", type(value).__name__)


def _does_nothing(function: Any) -> bool:
    """Whether the body is dots, ``pass``, a docstring or comments only."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    harmless = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE", "CACHE"}
    steps = list(dis.get_instructions(code))
    return all(step.opname in harmless for step in steps) and all(
        step.argval is None for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")
    )


def _expect_arguments(function: Callable[..., Any], signature: str) -> None:
    rest = signature.partition("(")[2]
    asked = [part.split("=")[0].strip() for part in rest.rstrip(")").split(",") if part.strip()]
    try:
        own = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: PyTorch's and numpy's own
        return
    try:
        own.bind(*asked)
    except TypeError:
        raise Wrong(
            f"{signature} is how it will be called, with {len(asked)} arguments; yours is "
            f"{_name(function)}{_bare(own)}."
        ) from None


def _bare(signature: inspect.Signature) -> str:
    parts = [
        part.replace(annotation=inspect.Parameter.empty) for part in signature.parameters.values()
    ]
    empty = inspect.Signature.empty
    return str(signature.replace(parameters=parts, return_annotation=empty))


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    return value.copy() if isinstance(value, np.ndarray) else value


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(before, after)
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and np.array_equal(before, after)
    return True


_LIBRARIES = (
    str(Path(__file__).parent.parent),
    str(Path(inspect.getfile(torch)).parent),
    *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)


def _is_own(filename: str) -> bool:
    return not filename.startswith((*_LIBRARIES, "<frozen", "<__array_function__"))
