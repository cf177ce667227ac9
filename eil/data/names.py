"""File names: Unicode normal forms, bytes that are not UTF-8, and files that are not photos."""

import functools
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from eil.core.files import InputError

SHOWN = 3  # names in a message
SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})


def nfc(name: str) -> str:
    """A name in Unicode's composed form (NFC), which most lists use; macOS writes names in decomposed form (NFD)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """A file name as a message can show it, whatever its bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def require_distinct(names: Sequence[str], where: str) -> None:
    """Refuse names that are not UTF-8, and pairs that differ only in their normal form.

    Raises:
        InputError: with the name.
    """
    seen: dict[str, str] = {}
    for name in names:
        if name.isascii():
            continue
        try:
            name.encode()
        except UnicodeEncodeError:
            raw = name.encode("utf-8", "surrogateescape")
            raise InputError(f"{where}: {printable(name)}: the file's name, {raw!r}, is not UTF-8: rename it") from None
        if (other := seen.setdefault(nfc(name), name)) != name:
            raise InputError(
                f"{where}: {name} is there twice, in Unicode's composed and decomposed form ({other!a} and "
                f"{name!a}): remove one"
            )


def names_on_disk(folder: Path) -> dict[str, str]:
    """Names in a folder as they are on disk, by their composed form."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=1000)
def _listed(folder: Path, _changed: int) -> dict[str, str]:
    return {nfc(path.name): path.name for path in folder.iterdir() if not path.name.isascii()}


def left_out(root: Path, folders: Collection[str], used: Collection[str]) -> tuple[str, ...]:
    """A remark for each kind of unused file in class folders, with a count and examples.

    Args:
        root: of the data set.
        folders: of its splits, below root; they contain the class folders.
        used: paths of the photos below root; an XML file beside a photo is used too.
    """
    found: dict[str, list[str]] = {}
    others = [name for folder in folders for name in files(root, folder) if name not in used]
    stems = {name.rpartition(".")[0] for name in used} if any(name.endswith(".xml") for name in others) else set()
    for name in others:
        *above, last = name.split("/")
        suffix = Path(last).suffix
        if suffix == ".xml" and name[:-4] in stems:
            continue
        if any(part.startswith(".") for part in (*above, last)) or last in SYSTEM_FILES:
            kind = "hidden and system files"
        elif len(above) > 2:
            kind = "files in sub-folders of a class"
        elif len(above) < 2:
            kind = "files outside of class folders"
        else:
            kind = f"files without a photo's suffix ({suffix or 'none'})"
        found.setdefault(kind, []).append(name)
    return tuple(f"left out: {len(names)} {kind}: {first_few(names)}" for kind, names in sorted(found.items()))


def first_few(names: Collection[str]) -> str:
    """The first few of some names, separated by commas."""
    return ", ".join(map(printable, sorted(names)[:SHOWN])) + (", …" if len(names) > SHOWN else "")


def files(root: Path, folder: str = "") -> Iterator[str]:
    """All files below a folder, by their paths below root; a folder's own links to folders are followed."""
    for entry in os.scandir(root / folder):
        inner = f"{folder}/{entry.name}" if folder else entry.name
        if not entry.is_dir():
            yield inner
            continue
        for top, _, names in os.walk(entry.path):
            below = inner + top[len(entry.path) :].replace(os.sep, "/")
            yield from (f"{below}/{name}" for name in names)
