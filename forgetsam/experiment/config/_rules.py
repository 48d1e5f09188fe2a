"""A row of the table of keys, and the rules that rows share."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from forgetsam._paths import local_path, scheme_of
from forgetsam.experiment.config._modules import is_module_attribute

# JAX's integers hold less than this, and its float32 numbers at most that.
_INT_LIMIT, _LARGEST = 2**31, 3.4e38
# `Key.absent` of the keys of 0.1, which all hashes have.
_UNSET: Any = object()


class Rule(NamedTuple):
  """A type, and a range in words and as a predicate.

  Attributes:
    kind: the type; float takes integers, too.
    allowed: the range as an error names it.
    accepts: whether a value of the type lies in the range.
    choices: the names to choose from, where there is a list of them.
  """

  kind: type
  allowed: str
  accepts: Callable[[Any], bool] = lambda value: True
  choices: tuple[str, ...] = ()

  def admits(self, value: Any) -> bool:
    """Whether `value` has the right type and lies in the range."""
    if self.kind is float:
      if isinstance(value, bool) or not isinstance(value, int | float):
        return False
      most = _INT_LIMIT - 1 if isinstance(value, int) else _LARGEST
      return abs(value) <= most and self.accepts(value)
    if self.kind is int and isinstance(value, bool):
      return False
    return isinstance(value, self.kind) and self.accepts(value)


class Key(NamedTuple):
  """One row of the table.

  Attributes:
    default: the value in `base_config`; None makes the key optional.
    rule: the values that it may take alone.
    help: one line for users.
    traced: whether compiled programs take it as an argument, so that runs
      which differ in it share one.
    compiled: whether it shapes the compiled program, where it is not traced.
    binding: whether it decides a run's result. A run may resume with other
      values of keys that do not, and `config_hash` leaves them out.
    tuned: whether a sweep's grid may vary it.
    perturbs: whether it is read only where weights are perturbed.
    switch: whether it is one of these and adds something: without a
      perturbation it must keep its default.
    absent: of a key that was added since 0.1, what runs did before it. A
      `config.json` without the key reads this rather than the default, from
      which it may differ, and `config_hash` leaves the key out where it holds
      this.
    tie_break: its turn, from 1, in deciding between settings that score alike:
      the smaller value wins, or the larger where negative. 0 decides nothing.
  """

  default: Any
  rule: Rule
  help: str
  traced: bool = False
  compiled: bool = True
  binding: bool = True
  tuned: bool = True
  perturbs: bool = False
  switch: bool = False
  absent: Any = _UNSET
  tie_break: int = 0

  @property
  def allowed(self) -> str:
    """The admitted values in words."""
    return self.rule.allowed + (", or none" if self.default is None else "")

  @property
  def unsaid(self) -> Any:
    """The value in a run whose `config.json` lacks the key."""
    return self.default if self.absent is _UNSET else self.absent

  def admits(self, value: Any) -> bool:
    """Whether `value` is allowed alone."""
    if value is None:
      return self.default is None
    return self.rule.admits(value)


def choice(*names: str) -> Rule:
  """One of several names."""
  allowed = "one of " + ", ".join(names)
  return Rule(str, allowed, lambda v: v in names, names)


def component(*names: str) -> Rule:
  """A built-in name, or one in a module."""
  allowed = f"one of {', '.join(names)}, or module:attribute"

  def accepts(value: str) -> bool:
    return value in names or is_module_attribute(value)

  return Rule(str, allowed, accepts, names)


def words(allowed: str, *names: str) -> Rule:
  """Names separated by commas, or nothing; any names where none are listed."""

  def accepts(value: str) -> bool:
    found = value.split(",") if value else []
    return all(word in names if names else word for word in found)

  return Rule(str, allowed + ", separated by commas, or nothing", accepts)


def patterns(allowed: str) -> Rule:
  """Regular expressions separated by commas, at least one."""

  def accepts(value: str) -> bool:
    try:
      return all(re.compile(one) and one for one in value.split(","))
    except re.error:
      return False

  return Rule(str, f"{allowed}, separated by commas", accepts)


def text(allowed: str) -> Rule:
  """A string that is not empty."""
  return Rule(str, allowed, bool)


def path(allowed: str, *schemes: str) -> Rule:
  """A path on this machine, or on file systems of these schemes."""

  def accepts(value: str) -> bool:
    try:
      return scheme_of(value) in schemes or bool(local_path("path", value))
    except ValueError:
      return False

  remote = "".join(f", or on {scheme}://" for scheme in schemes)
  return Rule(str, f"{allowed} on this machine{remote}", accepts)


def integer(low: int) -> Rule:
  """An integer that JAX can hold."""
  allowed = f"an integer, at least {low} and below 2**31"
  return Rule(int, allowed, lambda v: low <= v < _INT_LIMIT)


def number(allowed: str, accepts: Callable[[float], bool]) -> Rule:
  """A float32 number."""
  return Rule(float, allowed, accepts)


def per_channel(one: Rule) -> Rule:
  """A tuple of numbers, at least one."""

  def accepts(values: Sequence[Any]) -> bool:
    return bool(values) and all(map(one.admits, values))

  return Rule(tuple, f"a tuple, per channel {one.allowed}", accepts)


def interval(highest: float = math.inf) -> Rule:
  """A tuple of two positive numbers in order."""
  bound = "" if highest == math.inf else f" <= {highest:g}"

  def accepts(values: Sequence[Any]) -> bool:
    if len(values) != 2 or not all(map(POSITIVE.admits, values)):
      return False
    return bool(values[0] <= values[1] <= highest)

  allowed = f"a tuple of two numbers, 0 < lowest <= highest{bound}"
  return Rule(tuple, allowed, accepts)


FLAG = Rule(bool, "true or false")
SEED = Rule(
  int,
  "an integer, at least 0 and below 2**32, onto which JAX folds larger ones",
  lambda v: 0 <= v < 2**32,
)
COUNT = integer(1)
FINITE = number("a finite number", lambda v: True)
NOT_NEGATIVE = number("a finite number, at least 0", lambda v: v >= 0)
POSITIVE = number("a finite number above 0", lambda v: v > 0)
BELOW_ONE = number("a number in [0, 1)", lambda v: 0 <= v < 1)
UP_TO_ONE = number("a number in [0, 1]", lambda v: 0 <= v <= 1)
INSIDE_ONE = number("a number in (0, 1)", lambda v: 0 < v < 1)
SHARE = number("a number in (0, 1]", lambda v: 0 < v <= 1)
