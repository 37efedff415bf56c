"""What the pages need beyond Jupyter Book: MathML, markup for everybody, how the book was run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

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


class ChapterRuns(SphinxDirective):
    """Tables of hardware, versions and seconds, read from the file that the run wrote."""

    def run(self) -> list[nodes.Node]:
        """Write the tables in the page's own Markdown and let it be parsed."""
        file = Path(self.env.srcdir) / "results" / "runs.json"
        self.env.note_dependency(str(file))
        runs = json.loads(file.read_text(encoding="utf-8"))
        machine = {"date": runs["date"], **runs["machine"], **runs["versions"]}
        lines = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in machine.items())]
        lines += ["", "| chapter | seconds | data and setting |", "|---|---:|---|"]
        total = 0.0
        for name, run in runs["chapters"].items():
            total += run["seconds"]
            setting = "<br>".join(run["setting"])
            lines.append(f"| {{doc}}`{name}` | {run['seconds']:.0f} | {setting} |")
        lines.append(f"| all | {total:.0f} | |")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(file)), self.content_offset, node)
        return list(node.children)


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
    app.add_directive("chapter-runs", ChapterRuns)
    app.connect("html-page-context", mend_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
