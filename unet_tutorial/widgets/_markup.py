"""Tables and captioned pictures, as all widgets write them for a page without script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table that scrolls by itself; the first cell of a row is its head.

    Examples
    --------
    >>> print(html_table("sizes", ["", "H×W"], [["enc1", "8×8"]]))
    <div class="unet-scroll" tabindex="0" role="region" aria-label="sizes"><table><caption>sizes\
</caption>
    <thead><tr><td></td><th scope="col">H×W</th></tr></thead>
    <tbody>
    <tr><th scope="row">enc1</th><td>8×8</td></tr>
    </tbody></table></div>
    """
    caption = html.escape(caption)
    heads = "".join(
        f'<th scope="col">{html.escape(words)}</th>' if words else "<td></td>" for words in head
    )
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(str(first))}</th>'
        f"{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return (
        f'<div class="unet-scroll" tabindex="0" role="region" aria-label="{caption}">'
        f"<table><caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def text_table(rows: Sequence[Sequence[str]], align: str = "<") -> str:
    """Write rows as lines of plain text, in columns of one width.

    Parameters
    ----------
    rows : sequence of sequence of str
        The first is the head.
    align : str
        ``"<"`` or ``">"`` for each column, in order; the last one holds for all that follow.

    Examples
    --------
    >>> print(text_table([("stage", "value"), ("a", "7")], align="<>"))
    stage  value
    a          7
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = align + align[-1] * len(widths)
    return "\n".join(
        "  ".join(f"{cell:{sides[k]}{widths[k]}}" for k, cell in enumerate(row)).rstrip()
        for row in rows
    )


def captioned(address: str, words: str, alternative: str, style: str = "width:100%") -> str:
    """Write a picture below a few words.

    Examples
    --------
    >>> captioned("a.png", "label", "The label.")
    '<div>label<br><img alt="The label." src="a.png" style="width:100%"></div>'
    """
    return (
        f'<div>{html.escape(words)}<br><img alt="{html.escape(alternative)}" src="{address}" '
        f'style="{style}"></div>'
    )
