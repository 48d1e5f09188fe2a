"""The README's Python runs exactly as printed, block after block."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_snippets_run_as_printed():
  blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  assert len(blocks) == 3
  namespace = {}
  for block in blocks:
    exec(compile(block, "README.md", "exec"), namespace)
  assert namespace["value"] > 0
  metrics = namespace["metrics"]
  assert metrics["skipped"] == 0
  assert abs(metrics["perturbation_norm"] - 0.05) < 1e-4


def test_every_public_name_is_in_the_readme():
  import forgetsam as fs

  text = README.read_text()
  elsewhere = {"PerturbedGradientState", "TrainState", "make_eval_step"}
  missing = [
    name
    for name in fs.__all__
    if name not in elsewhere and not re.search(rf"\b{name}\b", text)
  ]
  assert not missing
