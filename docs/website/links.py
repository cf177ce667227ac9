"""Where each file of the repository is on the site, and the links of a page as they must read there.

Pages link by paths of the repository, so that they read right on a forge too. Nothing here needs mkdocs.
"""

import posixpath
import re
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

# Pages of the site that are not in docs/: path in the repository -> path on the site.
TOP_PAGES: Final = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
GALLERY: Final = "docs/gallery.md"  # made by gallery.py
_AS_THEY_ARE: Final = {".csv", ".md", ".png"}
_CODE = r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[ \t]*$|`[^`\n]+`"
_TARGET = r"(?<=\]\()(?![a-z]+:|#)(?P<target>[^)\s]+)(?=\))"
_CODE_OR_TARGET = re.compile(f"{_CODE}|{_TARGET}", re.MULTILINE | re.DOTALL)


def place(path: str, folder: bool = False) -> str:
    """Where a file of the repository is on the site; source files and folders become pages."""
    if path in TOP_PAGES:
        return TOP_PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if folder:
        return f"source/{path}/index.md"
    return path if posixpath.splitext(path)[1] in _AS_THEY_ARE else f"source/{path}.md"


def targets(text: str, page: str) -> list[str]:
    """Paths in the repository that a page links to, code left out.

    Args:
        text: Markdown of the page.
        page: its path in the repository.
    """
    found = (match["target"] for match in _CODE_OR_TARGET.finditer(text))
    return [_resolved(target, page)[0] for target in found if target]


def rewritten(text: str, page: str, folders: Iterable[str] = ()) -> str:
    """The page with links between paths of the site in place of paths of the repository.

    Args:
        text: Markdown of the page.
        page: its path in the repository.
        folders: which linked paths are folders.
    """
    folders = set(folders)

    def replace(match: re.Match[str]) -> str:
        if match["target"] is None:
            return match[0]
        path, anchor = _resolved(match["target"], page)
        return posixpath.relpath(place(path, path in folders), posixpath.dirname(place(page)) or ".") + anchor

    return _CODE_OR_TARGET.sub(replace, text)


def reachable(root: Path, texts: Mapping[str, str]) -> list[str]:
    """Paths outside docs/ that pages link to, directly or by linked pages and folders; all exist.

    Args:
        root: the repository.
        texts: Markdown of the first pages by their paths in the repository.
    """
    waiting = deque(target for page, text in texts.items() for target in targets(text, page))
    found: dict[str, None] = {}
    while waiting:
        path = waiting.popleft()
        if path in found or path in texts or not (root / path).exists():  # mkdocs refuses what does not exist
            continue
        found[path] = None
        if (root / path).is_dir():
            waiting.extend(files_in(root, path))
        elif path.endswith(".md"):
            waiting.extend(targets((root / path).read_text(encoding="utf-8"), path))
    return [path for path in found if not path.startswith("docs/")]


def files_in(root: Path, folder: str) -> list[str]:
    """Files in a folder and below, by their paths in the repository."""
    every = sorted(path for path in (root / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(root).as_posix() for path in every]


def _resolved(target: str, page: str) -> tuple[str, str]:
    path, sign, anchor = target.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)), sign + anchor
