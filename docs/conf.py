"""Sphinx's settings, and the table of configuration keys that it builds."""

import datetime
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import forgetsam as fs  # noqa: E402

project = "forgetsam"
author = "The forgetsam authors"
copyright = f"{datetime.date.today().year}, {author}"
release = version = fs.__version__

extensions = [
  "myst_nb",
  "sphinx.ext.autodoc",
  "sphinx.ext.autosummary",
  "sphinx.ext.mathjax",
  "sphinx.ext.napoleon",
  "sphinx_copybutton",
  "sphinx_design",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

# Docstrings name public objects in single backquotes: link what is one.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
  # Names that are not public objects of this project: arguments, other
  # libraries' types, modules. There are no inventories of theirs offline.
  (r"py:(obj|class|exc|func|meth|data|attr)", r"(?s).*"),
]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
# Shapes are in the descriptions; in signatures they would hide the names.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autosummary_generate = False
python_maximum_signature_line_length = 72
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
add_module_names = False

# CI runs the notebooks by nbmake; the pages show the outputs committed.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "forgetsam"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
  "show_toc_level": 2,
  "show_navbar_depth": 1,
  "home_page_in_toc": True,
}
copybutton_exclude = ".linenos, .gp, .go"


def keys_table() -> str:
  """Every configuration key in Markdown, group after group."""
  from forgetsam.experiment.config import KEYS, OPTIONS

  rows: dict[str, list[str]] = {}
  for name, key in KEYS.items():
    group = name.rpartition(".")[0]
    cells = (f"`{name}`", f"`{key.default!r}`", key.allowed, key.help)
    line = " | ".join(cell.replace("|", r"\|") for cell in cells)
    rows.setdefault(group, []).append(f"| {line} |")
  for name, key in OPTIONS.items():
    group = name.rpartition(".")[0]
    rows[group].append(f"| `{name}.*` | | {key.rule.allowed} | {key.help} |")
  return "\n\n".join(
    "\n".join(
      [
        f"## {group or 'The run'}",
        "",
        "| key | default | allowed | |",
        "| --- | --- | --- | --- |",
        *lines,
      ]
    )
    for group, lines in rows.items()
  )


def complete_page(app: Any, page: str, source: list[str]) -> None:
  """Fills in the table of keys, and titles pages that are one table."""
  del app
  if page == "keys":
    source[0] = source[0].replace("<!-- keys -->", keys_table())
  elif "/" in page and not source[0].lstrip().startswith(("# ", "{")):
    source[0] = f"# {page.replace('/', ', ')}\n\n{source[0]}"


def skip_fields(
  app: Any, what: str, name: str, obj: object, skip: bool, options: Any
) -> bool | None:
  """Leaves a NamedTuple's fields to its docstring."""
  del app, what, name, skip, options
  return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
  """Registers both."""
  app.connect("source-read", complete_page)
  app.connect("autodoc-skip-member", skip_fields)
