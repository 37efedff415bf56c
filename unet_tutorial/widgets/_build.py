"""Make the front end small: what is written in ``js/`` is shipped from ``built/``.

Comments, white space and long local names are a third of the bytes, and every stored copy of a
module would carry them. Run by ``make front-end``; a test compares both folders.
"""

from __future__ import annotations

from pathlib import Path

from unet_tutorial._files import write_text_whole

FOLDER = Path(__file__).parent


def build(source: Path) -> str:
    """Return a script or style sheet as it is shipped. It needs ``tdewolff-minify`` ([test])."""
    import minify

    kind = {".js": "application/javascript", ".css": "text/css"}[source.suffix]
    return str(minify.string(kind, source.read_text(encoding="utf-8"))).strip() + "\n"


def sources() -> list[Path]:
    """List the files of the front end."""
    return sorted(file for file in (FOLDER / "js").iterdir() if file.suffix in (".js", ".css"))


def main() -> None:
    """Write ``built/`` anew."""
    target = FOLDER / "built"
    target.mkdir(exist_ok=True)
    for file in target.iterdir():
        if file.name not in {source.name for source in sources()}:
            file.unlink()
    total = 0
    for source in sources():
        text = build(source)
        write_text_whole(target / source.name, text)
        total += len(text)
    print(f"{target.name}: {len(sources())} files, {total / 1000:.1f} kB")


if __name__ == "__main__":
    main()
