"""The guide: its Python runs as printed, its links lead somewhere."""

import re
from pathlib import Path

import pytest
from markdown_pages import PAGES, ROOT, python_blocks, run_blocks

DOCS = ROOT / "docs"
# The landing page repeats five lines of the guide; others have a test.
ELSEWHERE = tuple(
  DOCS / name for name in ("index.md", "foreign_loops.md", "own_data.md")
)
RUNNABLE = [p for p in PAGES if python_blocks(p) and p not in ELSEWHERE]


def _name(page: Path) -> str:
  return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUNNABLE, ids=_name)
def test_python_runs_as_printed(page: Path):
  run_blocks(page)


def test_the_landing_page_repeats_the_guide():
  guide = "".join(python_blocks(DOCS / "own_loop.md"))
  lines = "".join(python_blocks(DOCS / "index.md")).splitlines()
  for line in lines:
    assert line == "..." or line.strip() in guide, line


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=_name)
def test_links_lead_to_files(page: Path):
  for target in re.findall(r"\]\(([^)#\s]+)(?:#\S*)?\)", page.read_text()):
    if "://" not in target:
      found = page.parent / target
      # Browsed pages cannot show a folder.
      assert found.is_file() or (page not in PAGES and found.is_dir()), target


def test_commands_name_files_that_exist():
  for page in [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *PAGES]:
    for path in re.findall(
      r"(?<!/)\b(?:configs|scripts|benchmarks|docs)/[\w/]+\.(?:py|json)\b",
      page.read_text(),
    ):
      assert (ROOT / path).exists(), (page, path)
