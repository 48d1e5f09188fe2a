"""Runs main.py with nan images or impossible labels in some steps' batches.

POISONED=3,7 python tests/experiment/jobs/poisoned.py --config=... --workdir=...
"""

import os
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def poison(train_batches: Any, steps: Collection[int]) -> Any:
  """A split's `train_batches`, with a fault in these steps' batches.

  Images are nan in even ones, and in odd ones a label is no class.
  """

  def poisoned(
    self: Any, *, start_step: int = 0, **options: Any
  ) -> Iterator[dict[str, np.ndarray]]:
    batches = train_batches(self, start_step=start_step, **options)
    for step, batch in enumerate(batches, start_step):
      if step in steps and step % 2:
        batch = {**batch, "label": batch["label"].copy()}
        batch["label"][1] = 10
      elif step in steps:
        batch = {**batch, "image": batch["image"] * np.float32("nan")}
      yield batch

  return poisoned


if __name__ == "__main__":
  sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
  import main
  from forgetsam import data

  data.MemorySource.train_batches = poison(
    data.MemorySource.train_batches,
    {int(step) for step in os.environ["POISONED"].split(",")},
  )
  main.set_up_logging()
  sys.exit(main.run(sys.argv[1:], time.monotonic()))
