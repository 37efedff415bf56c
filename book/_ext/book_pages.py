"""What the pages need beyond Jupyter Book: MathML, markup for everybody, how the book was run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from unet_tutorial import results
from unet_tutorial.export import NETWORKS
from unet_tutorial.results import list_scripts, machine_name, markdown_of_means
from unet_tutorial.widgets import SCRIPT, STYLE, ShapeExplorer, write_site

# Of the package, not of these pages: the site is built from a copy of them.
CHECKOUT = Path(results.__file__).resolve().parents[1]
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


class ResultsTable(SphinxDirective):
    """Means over seeds, read from a measured file, with all that they depend on."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {
        "by": directives.unchanged_required,
        "values": directives.unchanged_required,
        "where": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        """Write the table in the page's own Markdown and let it be parsed."""
        name = self.arguments[0]
        folder = Path(self.env.srcdir) / "results"
        lines: list[str] = []
        for file in (folder / f"{name}.json", folder / "gpu" / f"{name}.json"):
            self.env.note_dependency(str(file))
            if file.exists():
                lines += self._table(json.loads(file.read_text(encoding="utf-8")))
        if not lines:
            if name not in {script.name for script in list_scripts(CHECKOUT)}:
                raise self.error(f"{name}: there is neither a measured file nor a script")
            lines += [f"*Not measured yet: `make results NAME={name}` does it.*", ""]
        elif not (folder / "gpu" / f"{name}.json").exists():
            lines += ["*Not measured on a GPU yet: `make gpu-results` does it.*", ""]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=name), self.content_offset, node)
        return list(node.children)

    def _table(self, about: dict[str, Any]) -> list[str]:
        by, values = ([one.strip() for one in self.options[k].split(",")] for k in ("by", "values"))
        pairs = [one.split("=", 1) for one in self.options.get("where", "").split(",") if one]
        where = {key.strip(): value.strip() for key, value in pairs}
        table = [
            line.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
            for line in markdown_of_means(about["rows"], by, values, where)
        ]
        machine = about["machine"]
        said = (
            f"Measured {about['date']} at commit {about['commit']} on {machine_name(machine)}, "
            f"torch {machine['torch']}, Python {machine['python']}."
        )
        return [*table, "", said, ""]


class ResultsCommands(SphinxDirective):
    """What can be measured anew, by which command."""

    def run(self) -> list[nodes.Node]:
        """List the scripts of the checkout."""
        lines = ["| result | what is measured | command |", "|---|---|---|"]
        for script in list_scripts(CHECKOUT):
            lines.append(f"| {script.name} | {script.does} | `make results NAME={script.name}` |")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="scripts"), self.content_offset, node)
        return list(node.children)


class Explorer(SphinxDirective):
    """The shape explorer on a page of text, which has no cell to make it."""

    option_spec: ClassVar[dict[str, Any]] = {"height": int, "width": int}

    def run(self) -> list[nodes.Node]:
        """Write what the widget's own output holds for a page without a kernel."""
        explorer = ShapeExplorer(**self.options)
        return [nodes.raw("", explorer.static_html(), format="html")]


def write_front_end(app: Sphinx) -> None:
    """Put scripts, style and networks of the widgets among the site's files."""
    files = sorted(NETWORKS.glob("*.safetensors"))
    write_site(Path(app.outdir) / "_static", {file.stem: file.read_bytes() for file in files})


def load_front_end(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the pages that hold a widget, and no other page, load script and style."""
    if 'class="unet-widget"' in context.get("body", ""):
        app.add_js_file(SCRIPT, loading_method="defer")
        app.add_css_file(STYLE)


def mend_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the reader's system choose the theme, and mend what Sphinx writes."""
    context["default_mode"] = "auto"
    for wrong, right in ACCESSIBLE.items():
        if context.get("body"):
            context["body"] = context["body"].replace(wrong, right)


def offer_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Let a notebook link to an entry of the glossary as it links to a heading.

    `[drop-out](glossary.md#term-drop-out)` is plain Markdown, which JupyterLab follows to the file.
    MyST knows headings only; with the terms among them it warns where there is no such entry.
    """
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for term in doctree.findall(nodes.term):
        slugs |= {name: (term.line or 0, name, term.astext()) for name in term["ids"]}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name ``mathml``: no script, no request to another host."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.add_directive("chapter-runs", ChapterRuns)
    app.add_directive("results-table", ResultsTable)
    app.add_directive("results-commands", ResultsCommands)
    app.add_directive("shape-explorer", Explorer)
    app.connect("builder-inited", write_front_end)
    app.connect("doctree-read", offer_terms)
    app.connect("html-page-context", load_front_end)
    app.connect("html-page-context", mend_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
