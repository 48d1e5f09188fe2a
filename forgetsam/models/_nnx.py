"""NNX models as pure functions, and in the place of Linen modules."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Key

from forgetsam.models._forward import Forward, ModelState, Params

# A variable of a split model, with its path there.
_Entry = tuple[tuple[Any, ...], Any]


def nnx_forward(model: Any) -> tuple[Forward, Params, ModelState]:
  """Takes an NNX model apart into a pure function and its values.

  BatchNorm's statistics come out as new ones where `train` is true; `key` seeds
  all of the model's random streams, each Dropout's apart from the others'.

  Args:
    model: the model, called with one argument, its inputs, and with `train`
      where it has such an argument. `model.train()` or `model.eval()` is called
      first. It is not changed.

  Returns:
    `forward(params, model_state, inputs, *, train, key=None)`, as
    `models.forward` makes it of a Linen module; the values of all `nnx.Param`,
    in nested dictionaries; and those of all other variables by kind, such as
    `{"batch_stats": ...}`. Random streams are not among them.

  Raises:
    ValueError: the model is no `nnx.Module`; and of `forward`: the model draws
      random numbers, and there is no key.

  Example:
    >>> class Model(nnx.Module):
    ...   def __init__(self, rngs):
    ...     self.dense = nnx.Linear(4, 3, rngs=rngs)
    ...     self.dropout = nnx.Dropout(0.5, rngs=rngs)
    ...   def __call__(self, x):
    ...     return self.dense(self.dropout(x))
    >>> forward, params, model_state = nnx_forward(Model(nnx.Rngs(0)))
    >>> logits, _ = forward(params, model_state, jnp.ones((5, 4)), train=False)
    >>> logits.shape, sorted(params["dense"]), model_state
    ((5, 3), ['bias', 'kernel'], {})
  """
  if not isinstance(model, nnx.Module):
    raise ValueError(
      f"model is a {type(model).__name__}, and must be an nnx.Module: of a "
      "Linen module models.forward makes the function"
    )
  graph, state = nnx.split(model)
  entries = list(nnx.to_flat_state(state))
  values = _values(entries)
  return _pure(graph, entries), values.pop("params", {}), values


def from_nnx(make: Callable[..., nnx.Module]) -> nn.Module:
  """Puts an NNX model in the place of a Linen module.

  Args:
    make: `make(rngs=nnx.Rngs(...))`, such as the model's class.

  Returns:
    A Linen module, for `models.initialise`, `models.forward`, and whatever else
    takes one. Its variables are those of `nnx_forward`.

  Example:
    >>> import functools
    >>> module = from_nnx(functools.partial(nnx.Linear, 4, 3))
    >>> variables = module.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> module.apply(variables, jnp.ones((5, 4)), train=False).shape
    (5, 3)
  """
  return _FromNnx(make)


class _FromNnx(nn.Module):
  make: Callable[..., nnx.Module]

  @nn.compact
  def __call__(self, inputs: Any, *, train: bool = False) -> Any:
    if self.is_initializing():
      model = self.make(rngs=nnx.Rngs(self.make_rng("params")))
      forward, params, model_state = nnx_forward(model)
      self._put({"params": params, **model_state})
    else:
      shapes = nnx.eval_shape(lambda: self.make(rngs=nnx.Rngs(0)))
      graph, state = nnx.split(shapes)
      forward = _pure(graph, list(nnx.to_flat_state(state)))
      model_state = dict(self.variables)
      params = model_state.pop("params", {})
    key = self.make_rng("dropout") if self.has_rng("dropout") else None
    outputs, new = forward(params, model_state, inputs, train=train, key=key)
    self._put(new)
    return outputs

  def _put(self, variables: dict[str, Any]) -> None:
    for collection, values in variables.items():
      if self.is_mutable_collection(collection):
        for name, value in values.items():
          self.put_variable(collection, name, value)


def _pure(graph: Any, entries: list[_Entry]) -> Forward:
  """The forward pass of a model; of its variables the values do not matter."""
  random = [i for i, (_, v) in enumerate(entries) if _is_random(v)]

  def forward(
    params: Params,
    model_state: ModelState,
    inputs: Any,
    *,
    train: bool,
    key: Key[Array, ""] | None = None,
  ) -> tuple[Any, ModelState]:
    if train and random and key is None:
      streams = sorted({entries[i][1].tag for i in random})
      raise ValueError(
        f"the model draws random numbers (streams: {', '.join(streams)}), and "
        "there is no key: pass key=, as jax.random.key makes it, where train "
        "is true"
      )
    key = jax.random.key(0) if key is None else key
    values = flatten_dict({"params": params, **model_state})
    full = [
      (path, _filled(variable, values, _place(path, variable), key, i))
      for i, (path, variable) in enumerate(entries)
    ]
    model = nnx.merge(graph, nnx.from_flat_state(full))
    takes_train = "train" in inspect.signature(model.__call__).parameters
    model.train() if train else model.eval()
    outputs = model(inputs, **({"train": train} if takes_train else {}))
    if not train:
      return outputs, model_state
    known = {path for path, _ in entries}
    after = nnx.to_flat_state(nnx.split(model)[1])
    new = _values([entry for entry in after if entry[0] in known])
    return outputs, {name: new[name] for name in model_state}

  return forward


def _values(entries: list[_Entry]) -> dict[str, Any]:
  """The values by collection and path, without random streams."""
  return dict(
    unflatten_dict(
      {
        _place(path, variable): jax.tree.map(jnp.asarray, _value(variable))
        for path, variable in entries
        if not _is_random(variable)
      }
    )
  )


def _place(path: tuple[Any, ...], variable: Any) -> tuple[str, ...]:
  if isinstance(variable, nnx.Param):
    collection = "params"
  elif isinstance(variable, nnx.Variable):
    collection = nnx.variable_name_from_type(
      type(variable), allow_register=True
    )
  else:
    collection = "arrays"
  # Of strings alone, as checkpoints need them: lists have numbers.
  return (collection, *map(str, path))


def _value(variable: Any) -> Any:
  return (
    variable.get_value() if isinstance(variable, nnx.Variable) else variable
  )


def _is_random(variable: Any) -> bool:
  return isinstance(variable, nnx.RngState)


def _filled(
  variable: Any,
  values: dict[tuple[str, ...], Any],
  place: tuple[str, ...],
  key: Key[Array, ""],
  i: int,
) -> Any:
  if isinstance(variable, nnx.RngCount):
    return variable.copy(jnp.zeros_like(variable.get_value()))
  if isinstance(variable, nnx.RngKey):
    # One for each stream: Dropout layers keep streams of their own.
    own, shape = jax.random.fold_in(key, i), variable.get_value().shape
    return variable.copy(jax.random.split(own, shape) if shape else own)
  value = values[place]
  if isinstance(variable, nnx.Variable):
    return variable.copy(value)
  return value
