"""Each promise of docs/reliability.md has a test of that name."""

import re

from markdown_pages import ROOT


def test_every_promise_names_a_test():
  text = (ROOT / "docs" / "reliability.md").read_text()
  named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
  assert len(named) >= 15
  for path, name in named:
    assert not name or f"def {name}(" in (ROOT / path).read_text(), name
  bare = set(re.findall(r"`(test_\w+)`", text))
  everything = "".join(p.read_text() for p in (ROOT / "tests").rglob("*.py"))
  assert bare
  for name in bare:
    assert f"def {name}(" in everything, name
