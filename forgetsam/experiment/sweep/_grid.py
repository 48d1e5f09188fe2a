"""Grids of configuration keys and values."""

import itertools
import re
from collections.abc import Iterator, Mapping

from forgetsam.experiment.config import ConfigError, refusal, row_of

Setting = Mapping[str, str]  # key, without `config.`, to value, as typed

_ALLOWED = (
  "KEY=VALUE,VALUE;KEY=VALUE,..., such as "
  "'perturbation.rho=0.05,0.1;optimizer.weight_decay=0,1e-4'"
)


def parse_grid(text: str) -> dict[str, tuple[str, ...]]:
  """Reads `KEY=VALUE,VALUE;KEY=VALUE,...`.

  Args:
    text: keys as in the configuration, without `config.`; values as on the
      command line. Commas within parentheses do not separate.

  Returns:
    The values of each key, in the order given.

  Raises:
    ConfigError: the text has another form, or a key may not be tuned.

  Example:
    >>> parse_grid("optimizer.weight_decay=0,1e-4;model.hidden=(8,),(8,8)")
    {'optimizer.weight_decay': ('0', '1e-4'), 'model.hidden': ('(8,)', '(8,8)')}
  """
  grid: dict[str, tuple[str, ...]] = {}
  for part in text.split(";"):
    key, equals, values = (piece.strip() for piece in part.partition("="))
    key = key.removeprefix("config.")
    chosen = tuple(v.strip() for v in re.split(r",(?![^(]*\))", values))
    if not (key and equals and all(chosen)):
      raise ConfigError(refusal("--grid", part, _ALLOWED))
    if key in grid:
      raise ConfigError(refusal("--grid", part, f"config.{key} once"))
    row = row_of(key)
    if row is not None and not row.tuned:
      allowed = "keys of the method; data and evaluation stay as they are"
      if key == "seed":
        allowed = "keys of the method; --seeds and --first_seed choose seeds"
      raise ConfigError(refusal("--grid", part, allowed))
    grid[key] = chosen
  return grid


def settings(grid: Mapping[str, tuple[str, ...]]) -> Iterator[Setting]:
  """The Cartesian product of a grid, the last key changing fastest.

  Example:
    >>> list(settings({"a": ("1", "2"), "b": ("3",)}))
    [{'a': '1', 'b': '3'}, {'a': '2', 'b': '3'}]
    >>> list(settings({}))
    [{}]
  """
  for values in itertools.product(*grid.values()):
    yield dict(zip(grid, values, strict=True))
