"""Models by name."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

Factory = Callable[..., nn.Module]

_REGISTRY: dict[str, tuple[Factory, dict[str, Any]]] = {}


def register(name: str, factory: Factory, **defaults: Any) -> None:
  """Registers a model, under the options that its name stands for.

  Args:
    name: what `create` calls it.
    factory: a Linen module's class, or a function that returns a module, with
      `num_classes` and every option as keyword arguments.
    **defaults: options that differ from the factory's own defaults.

  Raises:
    ValueError: the name is taken, or a default is no option of the factory.
  """
  if name in _REGISTRY:
    raise ValueError(f"name={name!r} is registered already: choose another")
  _check_options(name, factory, defaults)
  _REGISTRY[name] = (factory, defaults)


def names() -> tuple[str, ...]:
  """The registered models' names, sorted."""
  return tuple(sorted(_REGISTRY))


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
  """Creates a registered model.

  Args:
    name: one of `names()`.
    num_classes: number of logits.
    **options: the model's own options, as its class documents them.

  Returns:
    A Linen module: `module.apply(variables, images, train=False)` gives the
    logits [batch, num_classes] of images [batch, height, width, channels].

  Raises:
    ValueError: the name or an option is unknown, or an option's value is
      impossible.

  Example:
    >>> module = create("mlp", 10, hidden=(32,), activation="tanh")
    >>> module.num_classes, module.hidden
    (10, (32,))
  """
  if name not in _REGISTRY:
    raise ValueError(
      f"model name={name!r} is unknown; choose one of {list(names())}."
    )
  factory, defaults = _REGISTRY[name]
  _check_options(name, factory, options)
  return factory(num_classes=num_classes, **{**defaults, **options})


def _check_options(
  name: str, factory: Factory, options: dict[str, Any]
) -> None:
  """Raises a ValueError if an option is not an argument of the factory."""
  parameters = inspect.signature(factory).parameters
  # Linen adds `parent` and `name` to every module's arguments.
  allowed = sorted(set(parameters) - {"num_classes", "parent", "name"})
  for option in options:
    if option not in allowed:
      raise ValueError(
        f"model {name!r} has no option {option!r}; choose among {allowed}."
      )
