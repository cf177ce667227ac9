"""File names as they come: Unicode's normal forms, bytes that are not UTF-8, and files that are no photos."""

import functools
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from eil.files import InputError

SHOWN = 3  # names of a kind
SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini"})


def nfc(name: str) -> str:
    """A name in Unicode's composed form: macOS writes names in the decomposed one, most lists are in this."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """A file name as a message can show it, whatever its bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def require_distinct(names: Sequence[str], where: str) -> None:
    """Refuse names that are not UTF-8, or of which two look the same.

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


def spelt(folder: Path) -> dict[str, str]:
    """Names in a folder by their composed form."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=1000)
def _listed(folder: Path, _changed: int) -> dict[str, str]:
    return {nfc(path.name): path.name for path in folder.iterdir() if not path.name.isascii()}


def left_out(root: Path, folders: Collection[str], used: Collection[Path]) -> tuple[str, ...]:
    """A remark for each kind of file in class folders that is no photo of the data set, with a count and an example.

    Args:
        root: of the data set.
        folders: of its splits, below root; the class folders lie in them.
        used: the photos, and other files that belong to them.
    """
    found: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in files(root / folder)):
        depth = len(path.relative_to(root).parts)
        if path in used:
            continue
        if any(part.startswith(".") for part in path.relative_to(root).parts) or path.name in SYSTEM_FILES:
            kind = "hidden and system files"
        elif depth > 3:
            kind = "files in sub-folders of a class"
        elif depth < 3:
            kind = "files outside of class folders"
        else:
            kind = f"files without a photo's suffix ({path.suffix or 'none'})"
        found.setdefault(kind, []).append(path.relative_to(root).as_posix())
    return tuple(f"left out: {len(names)} {kind}: {first(names)}" for kind, names in sorted(found.items()))


def first(names: Collection[str]) -> str:
    """The first few of some names, in words."""
    return ", ".join(map(printable, sorted(names)[:SHOWN])) + (", …" if len(names) > SHOWN else "")


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder; links to folders are followed one level down, as the classes' own are."""
    for path in folder.iterdir():
        if path.is_dir():
            for top, _, names in os.walk(path):
                yield from (Path(top, name) for name in names)
        else:
            yield path
