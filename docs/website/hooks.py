"""What mkdocs does beyond its configuration: pages from outside docs/, the gallery, and links to source files.

Every file that a page links to is on the site: Markdown as a page, pictures and CSV as they are, source files as pages
of code, folders as lists of their files. So no link needs a forge.
"""

import posixpath
import re
from pathlib import Path

import gallery
import links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".smk": "python", ".cff": "yaml"}
_HIDDEN = "---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n"
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>(~?)([^<]+)</code>")
_paths: dict[str, str] = {}  # path on the site -> path in the repository, of every page
_folders: set[str] = set()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that forges give them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, the gallery, and everything that pages link to."""
    pages = [*links.TOP_PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in pages}
    texts[links.GALLERY] = gallery.page(ROOT)
    for path in links.TOP_PAGES:
        files.append(File.generated(config, links.place(path), content=texts[path]))
    files.append(File.generated(config, links.place(links.GALLERY), content=texts[links.GALLERY]))
    linked = links.reachable(ROOT, texts)
    _folders.update(path for path in linked if (ROOT / path).is_dir())
    for path in linked:
        files.append(_file(path, config))
    _paths.update({links.place(path, path in _folders): path for path in [*texts, *linked]})
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links lead to the site's own pages."""
    path = _paths[page.file.src_uri]
    own_links = page.file.src_uri.startswith("source/")
    return markdown if own_links else links.rewritten(markdown, path, _folders)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show names in docstrings without the role that Sphinx would read."""
    return _ROLE.sub(lambda m: f"<code>{m[2].rsplit('.', 1)[-1] if m[1] else m[2]}</code>", html)


def _file(path: str, config: MkDocsConfig) -> File:
    """A linked file or folder outside docs/ as a file of the site."""
    where = links.place(path, path in _folders)
    if path in _folders:
        lines = [f"- [{name}]({_between(where, links.place(name))})" for name in links.files_in(ROOT, path)]
        return File.generated(config, where, content=_HIDDEN + f"# {path}\n\n" + "\n".join(lines) + "\n")
    if not path.endswith(".md") and not where.startswith("source/"):
        return File.generated(config, where, abs_src_path=str(ROOT / path))
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):  # a table without a heading gets its file's name
        return File.generated(config, where, content=text if text.startswith("# ") else _HIDDEN + f"# {path}\n\n{text}")
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return File.generated(config, where, content=f"{_HIDDEN}# {path}\n\n~~~~~~~~{language}\n{text}\n~~~~~~~~\n")


def _between(here: str, there: str) -> str:
    return posixpath.relpath(there, posixpath.dirname(here))
