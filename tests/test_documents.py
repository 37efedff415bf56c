"""The two documents are quoted as they are, slips included, and say what the book says of them."""

from __future__ import annotations

import ast
import hashlib
import textwrap
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unet_tutorial import DoubleConvolution, DownSampling, UpSampling
from unet_tutorial.documents import (
    ARTICLE,
    FRAGMENTS,
    NOTES,
    article_namespace,
    fragment,
    show_fragment,
)


def without_the_fence_space(code: str) -> str:
    """Take off the one space that the Markdown of the notes sets before the fenced block."""
    return "\n".join(line.removeprefix(" ") for line in code.splitlines())


def test_there_are_four_fragments_of_the_article_and_two_of_the_notes() -> None:
    documents = [piece.document for piece in FRAGMENTS.values()]
    assert documents == [ARTICLE] * 4 + [NOTES] * 2
    for name, piece in FRAGMENTS.items():
        assert fragment(name) == piece.code
        assert piece.code.endswith("\n")
        assert not any(line != line.rstrip() for line in piece.code.splitlines())


# Taken from the documents themselves, without line numbers and spaces at the ends of lines.
QUOTED = {
    "article-1.1": "0b21158da485742e",
    "article-1.2": "0dfd38061e7044e6",
    "article-3": "811efe9a5dc4e94e",
    "article-4": "ac9de0d64fd2a2e8",
    "notes-down": "d8d652a027330baa",
    "notes-up": "02163904df444422",
}


def test_nobody_has_corrected_a_quotation() -> None:
    sums = {name: hashlib.sha256(fragment(name).encode()).hexdigest()[:16] for name in FRAGMENTS}
    assert sums == QUOTED


def test_an_unknown_fragment_is_refused_with_the_known_ones() -> None:
    for ask in (fragment, show_fragment):
        with pytest.raises(KeyError, match=r"'article-2'.*article-1.1, .*, notes-up"):
            ask("article-2")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([16], "self.out = nn.Conv2d(64, num_classes, kernel_size=1)"),
        ([19, 20, 21, 22], "self.dconv"),
        ([24], "self.bottle_neck(p4)"),
        ([26, 27, 28, 29], "self.uconv"),
        ([31], "out = self.out(u4)"),
    ],
)
def test_the_lines_that_the_article_explains_have_the_numbers_that_it_names(
    capsys: pytest.CaptureFixture[str], lines: list[int], words: str
) -> None:
    show_fragment("article-4")
    shown = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line[2:]
    )
    for line in lines:
        assert words in shown[str(line)]
    assert max(map(int, shown)) == 32


def test_a_shown_fragment_is_its_code_with_a_number_before_every_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in FRAGMENTS:
        show_fragment(name)
        shown = capsys.readouterr().out.splitlines()
        assert [int(line[:2]) for line in shown] == list(range(1, len(shown) + 1))
        code = fragment(name).expandtabs(4).splitlines()
        assert [line[4:] for line in shown] == code
        assert "\t" not in "".join(shown)


def test_the_articles_blocks_are_the_packages() -> None:
    theirs = article_namespace()
    assert list(theirs) == ["DoubleConvolution", "DownSampling", "UpSampling", "UNet"]
    image, below, skip = torch.rand(1, 3, 8, 12), torch.rand(1, 8, 4, 6), torch.rand(1, 4, 8, 12)
    cases: list[tuple[type[nn.Module], tuple[int, int], tuple[torch.Tensor, ...]]] = [
        (DoubleConvolution, (3, 4), (image,)),
        (DownSampling, (3, 4), (image,)),
        (UpSampling, (8, 4), (below, skip)),
    ]
    for block, channels, inputs in cases:
        ours, other = block(*channels), theirs[block.__name__](*channels)
        assert not isinstance(other, block)
        with torch.no_grad():
            for mine, their in zip(ours.parameters(), other.parameters(), strict=True):
                mine.copy_(their)
            expected, got = other(*inputs), ours(*inputs)
        for one, two in zip(_as_tuple(expected), _as_tuple(got), strict=True):
            assert torch.equal(one, two)


def _as_tuple(value: Any) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_the_notes_sample_of_the_down_path_is_indented_and_its_layers_stand_after_a_return() -> (
    None
):
    printed = fragment("notes-down")
    with pytest.raises(IndentationError):
        compile(printed, "notes-down", "exec")
    (function, *after) = ast.parse(without_the_fence_space(printed)).body
    assert isinstance(function, ast.FunctionDef)
    kinds = [type(statement).__name__ for statement in function.body]
    assert kinds == ["Return", "Assign"]
    assert len(after) == 2
    names: dict[str, Any] = {"nn": nn, "F": F, "x": torch.zeros(1, 1, 8, 8)}
    with pytest.raises(NameError, match="'self'"):
        exec(without_the_fence_space(printed), names)
    assert len(names["make_conv_bn_relu"](1, 64)) == 3


def test_the_notes_sample_of_the_up_path_needs_a_self() -> None:
    names: dict[str, Any] = {"nn": nn, "F": F, "torch": torch}
    with pytest.raises(NameError, match="'self'"):
        exec(fragment("notes-up"), names)


def test_the_notes_final_layer_takes_32_channels_and_is_given_64() -> None:
    printed = fragment("notes-up")
    layers, steps = printed.split("# upsample out_last")
    network = nn.Module()
    names: dict[str, Any] = {"nn": nn, "torch": torch, "self": network, "num_classes": 2}
    exec(layers, names)
    # Whether PyTorch still has F.upsample must not decide this test.
    steps = textwrap.dedent(steps.split("\n", 1)[1]).replace("F.upsample", "upsample")
    names |= {
        "upsample": lambda x, **options: F.interpolate(x, align_corners=False, **options),
        "out_last": torch.zeros(1, 64, 4, 4),
        "down1": torch.zeros(1, 64, 8, 8),
    }
    with pytest.raises(RuntimeError, match=r"32.*64"):
        exec(steps, names)
    network.final_conv = nn.Conv2d(64, 2, kernel_size=1)
    exec(steps, names)
    assert names["final_out"].shape == (1, 2, 8, 8)
