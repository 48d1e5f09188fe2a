"""Steps that are not finite: logged in a file, then skipped or stopped at."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from numpy import ndarray

from forgetsam.experiment.run._processes import on_main

_MOST_IN_A_ROW = 100
_ADVICE = (
  "A smaller config.optimizer.learning_rate or config.perturbation.rho, a "
  "longer config.schedule.warmup_epochs or config.optimizer.clip may help; "
  "each needs another --workdir. An example gives nan, too, whose label is no "
  "class or whose image is not finite."
)


class NonFiniteStepError(FloatingPointError):
  """A step's loss or gradient was not finite, and the run goes no further."""

  def __init__(self, message: str, step: int):
    super().__init__(message)
    self.step = step


class NonFiniteSteps:
  """A run's log of steps that were not finite.

  Each has a line of JSON in `nonfinite.jsonl`: its step, its metrics, and its
  examples' positions in TFDS's training split, row by row of the batch. With
  several processes, all call every method alike.

  Args:
    workdir: the run's folder.
    skips: whether the run passes over such steps.
    num_steps: the run's number of steps; a run all of whose steps are bad ends
      in an error, as does one with a hundred of them in a row.
    indices: a step's examples.
    record: what `record` returned, to go on from there.
  """

  def __init__(
    self,
    workdir: Path,
    skips: bool,
    num_steps: int,
    indices: Callable[[int], Int64[ndarray, " b"]],
    record: Mapping[str, int] | None = None,
  ):
    self.file = workdir / "nonfinite.jsonl"
    self.skips = skips
    self.skipped = record["skipped"] if record else 0
    self._in_a_row = record["in_a_row"] if record else 0
    self._most = min(_MOST_IN_A_ROW, num_steps)
    self._indices = indices

  def record(self) -> dict[str, int]:
    """The counts, for a checkpoint."""
    return {"skipped": self.skipped, "in_a_row": self._in_a_row}

  def forget_from(self, step: int) -> None:
    """Removes the lines of steps that a resumed run takes again."""
    on_main(lambda: self._forget_from(step))

  def _forget_from(self, step: int) -> None:
    if not self.file.exists():
      return
    lines = self.file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) < step]
    if kept != lines:
      draft = self.file.with_name(self.file.name + ".draft")
      draft.write_text("".join(kept))
      draft.replace(self.file)

  def bad(self, step: int, metrics: Mapping[str, float]) -> None:
    """Notes a step that was not finite.

    Raises:
      NonFiniteStepError: there were too many of them in a row.
    """
    on_main(lambda: self._write(step, metrics))
    if not self.skips:
      return
    self.skipped += 1
    self._in_a_row += 1
    if self._in_a_row >= self._most:
      raise NonFiniteStepError(
        f"{self._in_a_row} steps in a row, up to step {step}, are not finite: "
        f"{_in_words(metrics)}\nTheir batches' examples, by position in the "
        f"training split, are in {self.file}. {_ADVICE}",
        step,
      )

  def good(self) -> None:
    """Notes a step that was finite."""
    self._in_a_row = 0

  def error(
    self, step: int, metrics: Mapping[str, float]
  ) -> NonFiniteStepError:
    """The error of a run that stops at a step, which `bad` noted."""
    return NonFiniteStepError(
      f"step {step} is not finite: {_in_words(metrics)}\n"
      f"The state before it is saved as checkpoint {step}; which examples its "
      f"batch held, by position in the training split, is in {self.file}. "
      f"{_ADVICE} Or config.on_nonfinite=skip passes over such batches.",
      step,
    )

  def _write(self, step: int, metrics: Mapping[str, float]) -> None:
    line = {
      "step": step,
      # JSON has no nan.
      "metrics": {
        name: value if math.isfinite(value) else str(value)
        for name, value in metrics.items()
      },
      "indices": self._indices(step).tolist(),
    }
    with self.file.open("a") as file:
      file.write(json.dumps(line) + "\n")


def _in_words(metrics: Mapping[str, float]) -> str:
  return ", ".join(f"{name}={value:g}" for name, value in metrics.items())


def _step_of(line: str) -> float:
  """A line's step; a line that a crash cut short is dropped."""
  try:
    record: Any = json.loads(line)
    return float(record["step"])
  except (ValueError, KeyError, TypeError):
    return math.inf
