"""The Markdown pages, and the code that they print."""

import re
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = sorted(
  page
  for page in (ROOT / "docs").rglob("*.md")
  if "_build" not in page.parts and "notebooks" not in page.parts
)


def python_blocks(page: Path) -> list[str]:
  """The page's blocks of Python, without the indentation of lists."""
  found = re.findall(
    r"^( *)```python\n(.*?)^\1```", page.read_text(), re.DOTALL | re.MULTILINE
  )
  return [textwrap.dedent(block) for _, block in found]


def run_blocks(page: Path) -> dict[str, Any]:
  """Runs the blocks one after another; returns their names."""
  blocks = python_blocks(page)
  assert blocks, page
  namespace: dict[str, Any] = {}
  for block in blocks:
    exec(compile(block, str(page), "exec"), namespace)
  return namespace
