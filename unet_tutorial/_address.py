"""The address of the repository: it stands in ``_config.yml`` and is carried from there."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from unet_tutorial._files import in_checkout, write_whole

#: Where an address can stand. The file that remembers the old address comes last, so that a run
#: that was cut short is simply run again.
PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "data/*.md",
    "book/*.md",
    "book/*.ipynb",
    "pyproject.toml",
)


@dataclass(frozen=True)
class Address:
    """Where a repository on GitHub and its pages are.

    Attributes
    ----------
    owner, name : str
        Of the repository.
    site : str
        Of its pages, ending with a slash.
    """

    owner: str
    name: str
    site: str

    @property
    def repository(self) -> str:
        """The page of the repository, which git clones from as well."""
        return f"https://github.com/{self.owner}/{self.name}"


def parse_address(text: str, site: str = "") -> Address:
    """Understand the address of a repository as people copy it.

    Parameters
    ----------
    text : str
        ``https://github.com/OWNER/NAME``, also with ``.git`` or a slash at its end, the form for
        ssh, or ``OWNER/NAME`` alone, as GitHub's workflows have it.
    site : str
        Address of the pages; by default GitHub's own for this repository.

    Returns
    -------
    Address

    Raises
    ------
    ValueError
        If it is none: Colab, Binder and the pages' workflow know repositories on GitHub only.

    Examples
    --------
    >>> parse_address("git@github.com:Mina/my-unet.git")
    Address(owner='Mina', name='my-unet', site='https://mina.github.io/my-unet/')
    >>> parse_address("mina/mina.github.io").site
    'https://mina.github.io/'
    """
    found = re.fullmatch(
        r"(?:(?:https?://)?(?:www\.)?github\.com/|(?:ssh://)?git@github\.com[:/])?"
        r"(?P<owner>[A-Za-z0-9](?:-?[A-Za-z0-9])*)/(?P<name>[\w.-]+?)(?:\.git)?/?",
        text.strip(),
        re.ASCII,
    )
    if not found or found["name"] in (".", ".."):
        raise ValueError(
            f"{text!r} is no address of a repository on GitHub: expected "
            "https://github.com/OWNER/NAME, or OWNER/NAME"
        )
    owner, name = found["owner"], found["name"]
    if not site:
        host = f"{owner.lower()}.github.io"
        site = f"https://{host}/" + ("" if name.lower() == host else f"{name}/")
    elif not re.fullmatch(r"https?://[\w.-]+(?::\d+)?(?:/[\w.~/-]*)?", site, re.ASCII):
        raise ValueError(f"{site!r} is no address of a site: expected https://HOST/ or one below")
    return Address(owner, name, site.rstrip("/") + "/")


def read_address(root: Path) -> Address:
    """Read where the book is published from ``_config.yml``, the one place that decides.

    Parameters
    ----------
    root : Path
        The checkout.

    Returns
    -------
    Address

    Raises
    ------
    FileNotFoundError
        If the folder is no checkout of the book.
    ValueError
        If ``repository: url:`` is missing or no address.
    """
    text = _config(root)
    url, site = _setting(text, "repository", "url"), _setting(text, "html", "baseurl")
    if not url:
        raise ValueError(
            f"{root / '_config.yml'} has no url below repository: say where the book is"
        )
    return parse_address(url, site)


def carry_address(root: Path, url: str = "", site: str = "") -> list[Path]:
    """Carry the address to wherever it stands: links, badges, install lines, package, citation.

    Parameters
    ----------
    root : Path
        The checkout.
    url : str
        The new address of the repository, as for `parse_address`; by default that of
        ``_config.yml``, which somebody may have edited.
    site : str
        The new address of the pages. By default the one of ``_config.yml`` stays if it is
        somebody's own, and follows the repository if it is GitHub's.

    Returns
    -------
    list of Path
        The files that were written: those in which something changed. All else in them stays, to
        the byte.

    Raises
    ------
    FileNotFoundError
        If the folder is no checkout of the book.
    ValueError
        If an address is none; then nothing is written.
    """
    before, decided = _carried(root), read_address(root)
    # GitHub's own site moves along with the repository, a domain of one's own stays.
    usual = [parse_address(one.repository).site for one in (before, decided)]
    stays = "" if decided.site in usual else decided.site
    wanted = parse_address(url or decided.repository, site or stays)
    config = root / "_config.yml"
    text = _set(_config(root), "repository", "url", wanted.repository)
    files = {config: _set(text, "html", "baseurl", wanted.site)}
    for place in PLACES:
        for file in sorted(root.glob(place)):
            text = file.read_bytes().decode("utf-8")
            files[file] = _renamed(text, before, wanted)
    changed = []
    for file, text in files.items():
        if file.read_bytes() != text.encode():
            write_whole(file, lambda half, text=text: half.write_bytes(text.encode()))  # type: ignore[misc]
            changed.append(file)
    return changed


def _renamed(text: str, before: Address, wanted: Address) -> str:
    """Exchange every form in which an address stands in a text."""
    old, new = (f"{one.owner}/{one.name}" for one in (before, wanted))
    end = r"(?![\w-]|\.(?!git\b)\w)"  # not within a longer name
    # Patterns that begin with plain text are found fast, in megabytes of pictures.
    forms = [
        (f"github.com/{old}", end, f"github.com/{new}"),
        (before.site, "", wanted.site),
        (before.site[:-1], r"(?![\w/-]|\.\w)", wanted.site),
        (f"\ncd {before.name}", r"(?=\n)", f"\ncd {wanted.name}"),
    ]
    for host in ("colab.research.google.com/github", "mybinder.org/v2/gh"):
        forms.append((f"{host}/{old}", "(?=/)", f"{host}/{new}"))
    for plain, rest, instead in forms:
        if plain in text:
            text = re.sub(re.escape(plain) + rest, instead, text)
    return text


def _carried(root: Path) -> Address:
    """Read the address that was carried last, from the file that is written last."""
    _config(root)  # no checkout is the first thing to say
    urls = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    return parse_address(urls["Repository"], urls["Documentation"])


def _config(root: Path) -> str:
    return in_checkout(root, "_config.yml").read_bytes().decode("utf-8")


# A YAML library would drop the comments of the file.
def _line(section: str, key: str) -> re.Pattern[str]:
    return re.compile(
        rf"""(?m)(^{section}:[^\n]*\n(?:(?:[ #][^\n]*)?\n)*?[ ]+{key}:[ ]*)(["']?)([^\s"'#]*)\2"""
    )


def _setting(text: str, section: str, key: str) -> str:
    found = _line(section, key).search(text)
    return found[3] if found else ""


def _set(text: str, section: str, key: str, value: str) -> str:
    if _setting(text, section, key):
        return _line(section, key).sub(lambda found: found[1] + value, text, count=1)
    return re.sub(rf"(?m)^{section}:[^\n]*\n", lambda head: f"{head[0]}  {key}: {value}\n", text)
