"""Arrays of other files that our models lack: a class token, a pooler."""

import math

from forgetsam.interop._names import Names
from forgetsam.interop._read import Arrays

# timm's name of the norm before the tokens are pooled, and of that after.
_NORM, _POOLED_NORM = "norm.", "fc_norm."


def leave_out(state: Arrays, names: Names) -> tuple[Arrays, list[str]]:
  """The state without these, and a sentence for each change."""
  state, changes = dict(state), list[str]()
  for start in names.unused:
    if dropped := [name for name in state if name.startswith(start)]:
      state = {k: v for k, v in state.items() if k not in dropped}
      changes.append(f"{', '.join(dropped)}: left out, as nothing reads it")
  had_token = names.class_token in state
  if had_token:
    del state[str(names.class_token)]
    positions = state.get(str(names.positions))
    if positions is not None and positions.ndim == 3:
      # timm's `no_embed_class` has no position for it.
      tokens = positions.shape[1]
      if tokens != math.isqrt(tokens) ** 2:
        state[str(names.positions)] = positions[:, 1:]
    changes.append(
      f"{names.class_token}: left out, with its position; the mean of the "
      "patches' tokens goes to the head in its place"
    )
  # transformers' last norm comes before pooling always, under one name.
  normed_first = had_token
  if names.positions == "pos_embed":
    pooled = any(name.startswith(_POOLED_NORM) for name in state)
    moved = [] if pooled else [n for n in state if n.startswith(_NORM)]
    for name in moved:
      state[name.replace(_NORM, _POOLED_NORM, 1)] = state.pop(name)
    normed_first = bool(moved)
  if normed_first:
    changes.append("the last norm is taken after the tokens' mean, not before")
  return state, changes
