"""Sphinx: the pages of the folders and the docstrings as one site, which `make docs` builds.

The sources are the README files where they are, and a page for each module, which this file writes
into build/api before each build.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "build" / "api"

project = "senet_jax"
author = "the authors of senet_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "README.md",
    "senet_jax/**/README.md",
    "experiments/README.md",
    "experiments/**/README.md",
    "experiments/results/*/report.md",
    "notebooks/README.md",
    "build/api/*.rst",
]
# A theme that draws the complete tree on every page takes five times as long for 230 pages.
html_theme = "alabaster"
html_theme_options = {
    "description": "Channel attention in JAX and Flax",
    "fixed_sidebar": True,
    "page_width": "1120px",
    "sidebar_width": "260px",
}
html_title = "senet_jax"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

default_role = "code"
add_module_names = False
python_maximum_signature_line_length = 88
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# Short names in annotations that several modules have, such as "pixels", stay without a link.
suppress_warnings = ["ref.python"]

PAGES = [
    str(page.relative_to(ROOT).with_suffix(""))
    for folder in ("senet_jax", "experiments", "notebooks")
    for page in sorted((ROOT / folder).glob("**/README.md"))
]


def modules() -> list[str]:
    """The modules of the package by their dotted names."""
    found = []
    for file in sorted((ROOT / "senet_jax").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def write_api() -> None:
    """Writes a page for each module: its docstrings, and a list of the modules in it."""
    API.mkdir(parents=True, exist_ok=True)
    names = modules()
    for name in names:
        inner = [each for each in names if each.rpartition(".")[0] == name]
        lines = [name, "=" * len(name), "", f".. automodule:: {name}", ""]
        if inner:
            lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {each}" for each in inner), ""]
        page, text = API / f"{name}.rst", "\n".join(lines)
        # Pages that stay as they are need not be read again.
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
    for page in API.glob("*.rst"):
        if page.stem not in names:
            page.unlink()


TOCTREE = """
```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""


def _link(page: Path, text: str, target: str) -> str:
    """A link of a page as the site has it: a module's leads to its docstrings, a file's nowhere."""
    path = target.partition("#")[0]
    if not path or path.startswith(("http:", "https:")) or path.endswith((".md", ".png")):
        return f"[{text}]({target})"
    file = (page.parent / path).resolve()
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    if not (API / f"{name}.rst").exists():
        return text
    return f"[{text}](project:/build/api/{name}.rst)"


def change_page(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Adapts a page to the site, before it is parsed."""
    if docname.startswith("build/api/"):
        return
    page = ROOT / f"{docname}.md"
    text = re.sub(
        r"(?<!!)\[([^\]]+)\]\(([^)]+)\)", lambda match: _link(page, match[1], match[2]), source[0]
    )
    if docname.endswith("/report"):
        # A page of results links to it; it is in no list of pages.
        text = f"---\norphan: true\n---\n{text}"
    if docname == root_doc:
        text += TOCTREE.format(caption="Pages", pages="\n".join(PAGES))
        text += TOCTREE.format(caption="Modules", pages="build/api/senet_jax")
    source[0] = text


RANGED = re.compile(
    r"~?(?:typing\.)?Annotated\[(.+?), ~?(?:senet_jax\.ranges\.)?Range\((?:[^()]|\([^()]*\))*\)\]"
)
"""A type with the range of its numbers."""


def shorten(
    _app: Sphinx,
    _what: str,
    _name: str,
    _object: Any,
    _options: Any,
    given: str | None,
    result: str,
) -> tuple[str, str] | None:
    """Leaves the ranges of numbers out of a signature; the fields have them in their types."""
    return None if given is None else (RANGED.sub(r"\1", given), result)


def outdated(*_: object) -> list[str]:
    """The pages that are read at each build: the one with the list of pages, which is not in it."""
    return [root_doc]


def setup(app: Sphinx) -> None:
    """Writes the pages of the modules, and connects the changes of pages and signatures."""
    write_api()
    app.connect("source-read", change_page)
    app.connect("env-get-outdated", outdated)
    app.connect("autodoc-process-signature", shorten)
