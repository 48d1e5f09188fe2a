"""Refusals of a training step's arguments, before anything is traced."""

from typing import Any

import optax

from forgetsam._checks import check_count, is_number
from forgetsam._typing import AscentSignal
from forgetsam.training._micro_step import Examples
from forgetsam.training._train_state import TrainState, check_opt_state
from forgetsam.training.factored import MODES


def check_arguments(
  ascent: AscentSignal | None,
  perturb: optax.GradientTransformation | None,
  micro_batch_size: Any,
  ascent_fraction: Any,
) -> None:
  if micro_batch_size is not None:
    check_count(
      "micro_batch_size",
      micro_batch_size,
      ", or None for a device's whole share",
    )
  if not is_number(ascent_fraction) or not 0 < ascent_fraction <= 1:
    raise ValueError(
      f"ascent_fraction={ascent_fraction!r} must be in (0, 1], the share of "
      "each micro-batch that the perturbation is taken from"
    )
  given = {
    "ascent": ascent is not None,
    f"ascent_fraction={ascent_fraction}": ascent_fraction != 1,
  }
  for argument in given:
    if given[argument] and perturb is None:
      raise ValueError(
        f"{argument} is given without perturb, where nothing ascends: pass "
        "perturb=perturbed_gradient(sam(rho)), or leave it out"
      )


def check_state(
  perturb: optax.GradientTransformationExtraArgs | None, state: TrainState
) -> None:
  check_opt_state(state.opt_state)
  state_is_plain = isinstance(state.perturb_state, optax.EmptyState)
  if state_is_plain != (perturb is None):
    with_, without = ("step", "state") if state_is_plain else ("state", "step")
    raise ValueError(
      f"the {with_} was made with a perturb, and the {without} without: pass "
      "the same perturb to create_train_state and make_train_step"
    )


def check_previous(
  perturb: optax.GradientTransformationExtraArgs | None, examples: Examples
) -> None:
  if examples.previous is not None and perturb is None:
    raise ValueError(
      'the batch has "previous", the batch before, which plain training does '
      "not read: leave it out"
    )


def check_m_sharpness(mode: Any, chunk: Any) -> None:
  if mode not in MODES:
    raise ValueError(
      f"m_sharpness={mode!r} must be one of {', '.join(map(repr, MODES))}"
    )
  if chunk is not None:
    check_count("m_sharpness_chunk", chunk, ", or None for what memory allows")
