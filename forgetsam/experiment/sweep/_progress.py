"""A sweep's progress: a bar on a terminal, lines elsewhere."""

import sys
import time

from tqdm import tqdm

from forgetsam.experiment.sweep._records import Record, scored_by


class Progress:
  """Counts runs.

  Args:
    total: the sweep's runs.
    done: those that are finished from before.
  """

  def __init__(self, total: int, done: int):
    quiet = not sys.stderr.isatty()
    self._bar = tqdm(total=total, initial=done, unit="run", disable=quiet)
    self._total, self._done, self._before = total, done, done
    self._began = time.perf_counter()
    if done:
      print(f"{done} of {total} runs are finished from before.", flush=True)

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_: object) -> None:
    self._bar.close()

  def finished(self, name: str, record: Record) -> None:
    """Notes that a run has finished, and says how."""
    self._done += 1
    spent = time.perf_counter() - self._began
    pace = spent / (self._done - self._before)
    left = tqdm.format_interval(pace * (self._total - self._done))
    text = f"{name}: {_outcome(record)}, {record.seconds:.1f} s"
    if self._bar.disable:
      line = f"run {self._done} of {self._total}  {text}; {left} left"
      print(line, flush=True)
    else:
      self._bar.write(text, file=sys.stderr)
      self._bar.update()


def _outcome(record: Record) -> str:
  if record.diverged_at is not None:
    return f"diverged at step {record.diverged_at}"
  split = "validation" if "validation/loss" in record.metrics else "test"
  metric = scored_by([record])
  return f"{split} {metric} {record.metrics[f'{split}/{metric}']:.4f}"
