"""The training loop: steps, and what happens between them."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from forgetsam._arrays import is_float
from forgetsam.experiment.evaluation import rank
from forgetsam.experiment.run._checkpoint import Checkpoints
from forgetsam.experiment.run._delta_examples import DELTA_EXAMPLES
from forgetsam.experiment.run._experiment import Experiment
from forgetsam.experiment.run._jax_settings import jax_settings
from forgetsam.experiment.run._metrics import Clock, EpochMeans
from forgetsam.experiment.run._non_finite import NonFiniteSteps
from forgetsam.experiment.run._preemption import PreemptedError, Preemption
from forgetsam.experiment.run._reporting import Reporter
from forgetsam.training import TrainState


class _Pending(NamedTuple):
  """A dispatched step whose metrics are still on the device."""

  step: int
  metrics: dict[str, Array]
  probe: dict[str, Array]  # of the weights after it, or empty
  requests: Array | None  # of the processes, to end here


@dataclasses.dataclass(frozen=True)
class Loop:
  """Runs steps, and evaluates, saves, logs and ends between them.

  Steps are counted by the batches that they took: where bad ones were passed
  over, `state.step`, which counts updates, is so much smaller.
  """

  experiment: Experiment
  checkpoints: Checkpoints
  reporter: Reporter
  means: EpochMeans
  clock: Clock
  preemption: Preemption
  non_finite: NonFiniteSteps

  def run(self, state: TrainState, trace: Path | None) -> TrainState:
    """Runs all steps that are left; the last state is saved.

    Raises:
      NonFiniteStepError: a step was not finite.
      PreemptedError: the run was asked to end before its last step.
    """
    experiment = self.experiment
    start = int(state.step) + self.non_finite.skipped
    stop = experiment.num_steps
    self.non_finite.forget_from(start)
    profile = _Profile(trace, start, stop)
    batches = experiment.train_batches(start, stop)
    pending: _Pending | None = None
    skipped = jnp.zeros_like(state.step, jnp.float32)
    for step, batch in zip(range(start, stop), batches, strict=True):
      profile.before(step)
      if not self.non_finite.skips:
        if pending is not None and not any(
          map(is_float, jax.tree.leaves(batch))
        ):
          self._settle(pending, state)
          pending = None
        batch = _nan_after_all(skipped, batch)
      if step == start:
        self.reporter.stage("compiling the step", self.clock.session())
      state, metrics = experiment.train_step(state, batch, experiment.key)
      skipped = metrics["skipped"]
      if step == start:
        self.clock.first_step()
      # The device works on this step while the host reads the one before.
      if pending is not None:
        self._settle(pending, state)
      self.checkpoints.check()
      probe = self._probe(step + 1, state)
      pending = _Pending(step, metrics, probe, self.preemption.dispatch())
      profile.after(step + 1, state)
      requested = self.preemption.requested
      if self._pauses(step + 1):
        self._settle(pending, state)
        pending = None
        with self.reporter.pause(step + 1):
          self._pause(step + 1, state)
      elif requested:
        self._settle(pending, state)
        self._save(step + 1, state, None)
      if requested and step + 1 < stop:
        self.checkpoints.wait()
        raise PreemptedError(
          f"Asked to end: step {step + 1} of {stop} is saved. The same command "
          "goes on from there."
        )
    return state

  def _probe(self, done: int, state: TrainState) -> dict[str, Array]:
    """Dispatches the probe where it is due."""
    experiment = self.experiment
    if experiment.probe is None or done % experiment.intervals.probe:
      return {}
    return experiment.probe(state.params, state.model_state)

  def _pauses(self, done: int) -> bool:
    every = self.experiment.intervals
    return (
      done % every.evaluate == 0
      or done == self.experiment.num_steps
      or (every.checkpoint is not None and done % every.checkpoint == 0)
    )

  def _settle(self, pending: _Pending, state: TrainState) -> None:
    """Reads a step's metrics; stops or goes on where it was not finite."""
    step, values = pending.step, jax.device_get(pending.metrics)
    self.preemption.agree(pending.requests)
    metrics = {name: float(value) for name, value in values.items()}
    if metrics.pop("skipped"):
      self.non_finite.bad(step, metrics)
      if not self.non_finite.skips:
        self._stop_at(step, metrics, state)
      self.means.skip(step)
      self.reporter.advance(step + 1)
      return
    self.non_finite.good()
    if pending.probe:
      self.reporter.probe(step + 1, jax.device_get(pending.probe))
    self.means.add(step, metrics)
    self.reporter.advance(step + 1)
    if self.reporter.due(step + 1):
      skipped = self.non_finite.skipped
      for name, schedule in self.experiment.schedules.items():
        metrics[name] = float(schedule(step - skipped))
      if self.non_finite.skips:
        metrics["skipped_steps"] = float(skipped)
      self.reporter.training(step + 1, metrics)

  def _stop_at(
    self, step: int, metrics: dict[str, float], state: TrainState
  ) -> None:
    """Saves the state before a non-finite step and ends the run."""
    if step not in self.checkpoints.steps():
      self._save(step, state, None)
    self.checkpoints.wait()
    raise self.non_finite.error(step, metrics)

  def _pause(self, done: int, state: TrainState) -> None:
    """Evaluates where it is due, and saves."""
    experiment = self.experiment
    ranked = None
    last = done == experiment.num_steps
    evaluates = done % experiment.intervals.evaluate == 0
    if (evaluates or last) and experiment.sources.validation is not None:
      ranked = rank(self._evaluate(done, state, "validation"))
    if evaluates and not last and experiment.watch_test:
      self._evaluate(done, state, "test")
    self._save(done, state, ranked)

  def _evaluate(
    self, done: int, state: TrainState, split: str
  ) -> dict[str, float]:
    """Scores and reports the state; returns the scores of its own weights."""
    results = self.experiment.evaluate(state, split)
    for name, result in results.items():
      self.reporter.evaluation(done, name, result)
    return results[split]

  def _save(
    self, done: int, state: TrainState, ranked: tuple[float, ...] | None
  ) -> None:
    sources = self.experiment.sources
    assert sources.train is not None  # it is what the run trains on
    record = {
      "jax": jax_settings(),
      "wall_seconds": self.clock.wall(),
      "means": self.means.record(),
      "non_finite": self.non_finite.record(),
      "num_classes": sources.num_classes,
      "examples": [len(sources.train), sources.left_out],
      "image_shape": list(sources.image_shape),
      DELTA_EXAMPLES: self.experiment.delta_examples,
    }
    self.reporter.flush()  # a run that resumes here has these rows
    self.checkpoints.save(state, record, ranked, step=done)


def _nan_after_all(skipped: Array, batch: dict[str, Any]) -> dict[str, Any]:
  """Nan in a batch's floats after a skipped step: it is then skipped, too.

  The host has dispatched the next step before it reads a step's metrics.
  """
  return jax.tree.map(
    lambda x: _nan_after(skipped, x) if is_float(x) else x, batch
  )


@jax.jit
def _nan_after(skipped: Array, x: Array) -> Array:
  return jnp.where(skipped, jnp.nan, x)


class _Profile:
  """Traces a few steps of a session, past compilation, with JAX's profiler.

  Own code: clu's Profile does not wait for the devices where a trace ends, and
  ends none in a run that is shorter than 3 seconds.
  """

  _SKIP, _COUNT = 5, 5

  def __init__(self, folder: Path | None, start: int, stop: int):
    self._folder = folder
    self._first = min(start + self._SKIP, max(start, stop - self._COUNT))
    self._last = min(self._first + self._COUNT, stop)

  def before(self, step: int) -> None:
    if self._folder is not None and step == self._first:
      jax.profiler.start_trace(str(self._folder))

  def after(self, done: int, result: object) -> None:
    if self._folder is not None and done == self._last:
      jax.block_until_ready(result)
      jax.profiler.stop_trace()
