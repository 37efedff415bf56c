"""Make the front end small: what is written in ``js/`` is shipped from ``built/``.

Comments, white space and long local names are a third of the bytes, and every stored copy of a
module would carry them. The engine's arithmetic, written in C, is compiled to WebAssembly and put
into the script that uses it. Run by ``make front-end``; a test compares both folders.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from unet_tutorial._files import write_text_whole

FOLDER = Path(__file__).parent
ENGINE = "@engine.wasm@"  # where a script wants the compiled engine


@cache
def webassembly() -> bytes:
    """Compile ``engine.c``. It needs ``ziglang`` ([test]), which brings clang and its linker.

    Raises
    ------
    RuntimeError
        If it does not compile: with the compiler's words.
    """
    options = (
        "-target wasm32-freestanding -mcpu=generic+simd128 -O3 -fno-unroll-loops -nostdlib -g0 "
        "-Wl,--no-entry,--import-memory,--strip-all,--export=__heap_base,-z,stack-size=16384"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "engine.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *options.split(), "-o", file.name]
        command.append(str(FOLDER / "js" / "engine.c"))
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"engine.c does not compile:\n{done.stderr}")
        return file.read_bytes()


def build(source: Path) -> str:
    """Return a script or style sheet as it is shipped. It needs what [test] installs."""
    import minify

    kind = {".js": "application/javascript", ".css": "text/css"}[source.suffix]
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".js" and source.name != "core.js":
        # Within a function even the name of what is shared may be short.
        text = f"((UNetBook) => {{\n{text}\n}})(UNetBook);"
    text = str(minify.string(kind, text)).strip()
    # What follows begins with a parenthesis, and must not be taken for a call of this.
    text += ";\n" if source.suffix == ".js" else "\n"
    if ENGINE in text:
        from zopfli.zlib import compress  # the same bytes on every machine, unlike zlib's

        text = text.replace(ENGINE, base64.b64encode(compress(webassembly())).decode())
    return text


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
