"""What the pages of the book need beyond Jupyter Book: MathML, and markup for everybody."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

ACCESSIBLE = {
    # Deprecated in DPUB-ARIA 1.1: a list of references is a list.
    ' role="doc-biblioentry"': ' role="listitem"',
    # The corner of a table with row names heads nothing.
    '<th class="head"><p></p></th>': "<td></td>",
}


def inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, in a box that scrolls if the screen is narrow."""
    formula = convert(node.astext(), display="block")
    translator.body.append(f'<div class="math" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def mend_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the reader's system choose the theme, and mend what Sphinx writes."""
    context["default_mode"] = "auto"
    for wrong, right in ACCESSIBLE.items():
        if context.get("body"):
            context["body"] = context["body"].replace(wrong, right)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name ``mathml``: no script, no request to another host."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("html-page-context", mend_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
