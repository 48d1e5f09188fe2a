"""Refuses perturbations whose keys do not go together, or would do nothing."""

from collections.abc import Iterable, Iterator
from typing import Any

from forgetsam.experiment.config._errors import refusal
from forgetsam.experiment.config._keys import KEYS

_SWITCHES = tuple(key for key, row in KEYS.items() if row.switch)
_REPEATS = ("perturbation.steps", "perturbation.every_k")


def perturbation_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  """Yields a refusal for each key of the perturbation that fits no other."""
  name, combine = leaves["perturbation.name"], leaves["combine.name"]
  chosen = f"config.perturbation.name={name}"
  if name == "none":
    reason = f"{chosen}: nothing is perturbed; choose one, such as sam"
    yield from _not_default(leaves, _SWITCHES, reason)
    return
  if name in ("random", "momentum"):
    keys = _REPEATS if combine != "none" else ("ascent.name", *_REPEATS)
    reason = f"{chosen}: its direction needs no ascent gradient"
    yield from _not_default(leaves, keys, reason)
  if leaves["combine.decoupled"] and combine != "weighted":
    allowed = (
      f"false where config.combine.name={combine}, which is not weighted"
    )
    yield refusal("config.combine.decoupled", True, allowed)
  if leaves["perturbation.steps"] > 1:
    reason = "config.perturbation.steps > 1: each step needs its own ascent"
    yield from _not_default(leaves, ["perturbation.every_k"], reason)
  if leaves["method.name"] == "sampa":
    reason = "config.method.name=sampa: it ascends by the last step's gradient"
    yield from _not_default(
      leaves, ("ascent.name", "perturbation.steps"), reason
    )
  if leaves["look_sam.k"] > 1:
    reason = "config.look_sam.k > 1: it has its own rule for the steps between"
    keys = ("combine.name", "perturbation.every_k", "method.name")
    yield from _not_default(leaves, keys, reason)
  start, stop = leaves["perturbation.start"], leaves["perturbation.stop"]
  if start >= stop:
    allowed = f"a number below config.perturbation.stop={stop}"
    yield refusal("config.perturbation.start", start, allowed)


def _not_default(
  leaves: dict[str, Any], keys: Iterable[str], reason: str
) -> Iterator[str]:
  for key in keys:
    default = KEYS[key].default
    if leaves[key] != default:
      yield refusal(f"config.{key}", leaves[key], f"{default} where {reason}")
