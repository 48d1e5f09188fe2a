"""Refuses perturbations whose keys do not go together, or would do nothing."""

from collections.abc import Iterator
from typing import Any

from forgetsam.experiment.config._errors import refusal

# What a key holds where it changes nothing.
_NEUTRAL = {
  "ascent.name": "loss",
  "ascent.fraction": 1,
  "perturbation.steps": 1,
  "perturbation.every_k": 1,
  "perturbation.layers": "all",
  "perturbation.start": 0,
  "perturbation.stop": 1,
  "look_sam.k": 1,
  "combine.name": "none",
}
_OF_ASCENT = ("ascent.name", "perturbation.steps", "perturbation.every_k")


def perturbation_problems(leaves: dict[str, Any], _: int) -> Iterator[str]:
  """What is wrong with the keys of ascent, perturbation and combine rule."""
  name, combine = leaves["perturbation.name"], leaves["combine.name"]
  if name == "none":
    text = "nothing is perturbed; choose a perturbation, such as sam"
    yield from _must_be_neutral(leaves, _NEUTRAL, f"{_is(leaves)}: {text}")
    return
  if name in ("random", "momentum") and combine == "none":
    text = "it reads no ascent gradient"
    yield from _must_be_neutral(leaves, _OF_ASCENT, f"{_is(leaves)}: {text}")
  elif name in ("random", "momentum"):
    text = "its direction needs no ascent"
    yield from _must_be_neutral(
      leaves, _OF_ASCENT[1:], f"{_is(leaves)}: {text}"
    )
  if combine == "weighted":
    text = "the rule descends the ascent objective too"
    yield from _must_be_neutral(
      leaves, ["ascent.name"], f"config.combine.name=weighted: {text}"
    )
  if leaves["perturbation.steps"] > 1:
    text = "each of its steps needs an ascent of its own"
    yield from _must_be_neutral(
      leaves, ["perturbation.every_k"], f"config.perturbation.steps > 1: {text}"
    )
  if leaves["look_sam.k"] > 1:
    text = "it has a rule of its own for the steps between"
    yield from _must_be_neutral(
      leaves,
      ["combine.name", "perturbation.every_k"],
      f"config.look_sam.k > 1: {text}",
    )
  start, stop = leaves["perturbation.start"], leaves["perturbation.stop"]
  if start >= stop:
    yield refusal(
      "config.perturbation.start",
      start,
      f"a number below config.perturbation.stop={stop}",
    )


def _is(leaves: dict[str, Any]) -> str:
  return f"config.perturbation.name={leaves['perturbation.name']}"


def _must_be_neutral(
  leaves: dict[str, Any], keys: Any, reason: str
) -> Iterator[str]:
  for key in keys:
    if leaves[key] != _NEUTRAL[key]:
      yield refusal(
        f"config.{key}", leaves[key], f"{_NEUTRAL[key]} where {reason}"
      )
