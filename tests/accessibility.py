"""axe on a page, with the same verdicts in about half of the time."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT

# For every word of a page axe parses the colors of all that lies behind it, and keeps the parts
# of each color in seven weak maps: most of its time. Here it keeps them in the color itself, and
# parses each text once. tests/test_accessibility.py compares what it then says.
HASTENED = (
    """(() => {
class WeakMap {
  key = Symbol();
  has(owner) { return this.key in owner; }
  get(owner) { return owner[this.key]; }
  set(owner, value) { owner[this.key] = value; return this; }
  delete(owner) { return this.has(owner) && delete owner[this.key]; }
}
class WeakSet extends WeakMap {
  add(owner) { return this.set(owner, true); }
}
"""
    + AXE_SCRIPT
    + """
const { prototype } = axe.commons.color.Color;
const { parseString } = prototype;
const parsed = new Map();
prototype.parseString = function (text) {
  const found = parsed.get(text);
  if (found) {
    [this.r, this.g, this.b, this.alpha] = found;
    return this;
  }
  const color = parseString.call(this, text);
  parsed.set(text, [this.r, this.g, this.b, this.alpha]);
  return color;
};
})()"""
)


def find_violations(page: Any, *rules: str) -> list[dict[str, Any]]:
    """Ask axe what on a page not everybody can use, by some of its rules or by all."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    return ask(page, HASTENED, options)["violations"]


def ask(page: Any, script: str, options: dict[str, Any]) -> dict[str, Any]:
    """Bring axe to a page and run it."""
    page.evaluate(script)
    return page.evaluate("options => axe.run(options)", options)
