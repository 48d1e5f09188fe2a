"""Linen modules as pure functions of parameters, state and inputs."""

import inspect
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import errors
from jaxtyping import Array, Float, Key

Params = Any
ModelState = dict[str, Any]  # by collection, such as "batch_stats"
Forward = Callable[..., tuple[Any, ModelState]]

# Other names that modules give to what `train` says, or to its opposite.
_OTHER_FLAGS = ("deterministic", "use_running_average", "training")


def forward(module: Any, rngs: Sequence[str] = ()) -> Forward:
  """Makes the pure function that a train step takes from a Linen module.

  Args:
    module: a module that is called with its inputs, one array or a tree of
      them, and with `train=` where it has such an argument.
    rngs: random streams besides "dropout" that the module asks for with
      `has_rng`, or that its lifted transforms split. Any other that it draws
      from is there unnamed: Flax takes it from "params", which is there, too.

  Returns:
    `forward(params, model_state, inputs, *, train, key=None)`, which returns
    `(outputs, model_state)`: the outputs, such as logits, are an array or a
    tree. `model_state` holds all collections but "params", such as
    `{"batch_stats": ...}`, or is empty; where `train` is false it comes back as
    it is. `key` seeds the random streams: a model that has any, such as
    dropout, needs it where `train` is true.

  Raises:
    ValueError: the module is not Linen's, or needs other arguments; and of
      `forward`: it draws random numbers, and there is no key.

  Example:
    >>> class Model(nn.Module):
    ...   @nn.compact
    ...   def __call__(self, images, train=False):
    ...     return nn.Dense(3)(images.reshape(len(images), -1))
    >>> params, model_state = initialise(Model(), jax.random.key(0), (2, 2, 1))
    >>> logits, model_state = forward(Model())(
    ...   params, model_state, jnp.ones((5, 2, 2, 1)), train=False
    ... )
    >>> logits.shape, model_state
    ((5, 3), {})
  """
  takes_train = _takes_train(module)

  def apply(
    params: Params,
    model_state: ModelState,
    inputs: Any,
    *,
    train: bool,
    key: Key[Array, ""] | None = None,
  ) -> tuple[Any, ModelState]:
    variables = {"params": params, **model_state}
    flag: dict[str, Any] = {"train": train} if takes_train else {}
    try:
      if not train:
        return module.apply(variables, inputs, **flag), model_state
      outputs, updates = module.apply(
        variables,
        inputs,
        **flag,
        rngs=None if key is None else _streams(key, rngs),
        mutable=list(model_state),
      )
    except errors.InvalidRngError as error:
      remedy = "pass key=jax.random.key(...) where train is true"
      if not train:
        remedy = "it must draw none where train is false"
      raise ValueError(f"there is no key: {remedy}\n  {error}") from error
    return outputs, dict(updates)

  return apply


def _streams(key: Key[Array, ""], names: Sequence[str]) -> dict[str, Any]:
  others = {
    name: jax.random.fold_in(key, zlib.crc32(name.encode()))
    for name in (*names, "params")
  }
  return {**others, "dropout": key}


def _takes_train(module: Any) -> bool:
  """Whether a module is called with `train`; refuses what cannot be called."""
  name = type(module).__name__
  if not isinstance(module, nn.Module):
    raise ValueError(
      f"module={name} must be a Linen module: models.nnx_forward takes an NNX "
      "model; of others, write forward(params, model_state, inputs, *, train, "
      "key) -> (outputs, model_state)"
    )
  if isinstance(module, nn.Sequential):  # keywords go to its first layer
    first = module.layers[0]
    return isinstance(first, nn.Module) and _takes_train(first)
  parameters = dict(inspect.signature(type(module).__call__).parameters)
  keywords = [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
  takes_train = "train" in parameters or bool(keywords)
  unfilled = [
    p.name
    for p in list(parameters.values())[2:]  # after self and inputs
    if p.name != "train"
    and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    and (p.default is p.empty or (p.name in _OTHER_FLAGS and not takes_train))
  ]
  if unfilled:
    raise ValueError(
      f"module={name}: its __call__ has the argument {unfilled[0]!r}, and gets "
      "its inputs and train= alone: wrap it in a module with "
      "__call__(self, inputs, train) that says what to pass"
    )
  return takes_train


def initialise(
  module: nn.Module, key: Key[Array, ""], image_shape: Any
) -> tuple[Params, ModelState]:
  """Draws a Linen module's parameters, and its state before any batch.

  Args:
    module: as in `forward`.
    key: a typed key, as `jax.random.key` makes it.
    image_shape: height, width and channels of an image, or any other shape of
      one example's float32 array; of other inputs, a tree of arrays or of
      `jax.ShapeDtypeStruct`, again of one example, without the batch axis.

  Returns:
    The parameters, and all other collections, such as
    `{"batch_stats": ...}`, or an empty dictionary. A collection to which `sow`
    adds in each pass is no state, and is left out.

  Example:
    >>> tokens = jax.ShapeDtypeStruct((7,), jnp.int32)
    >>> params, _ = initialise(nn.Embed(5, 3), jax.random.key(0), tokens)
    >>> params["embedding"].shape
    (5, 3)
  """
  flag: dict[str, Any] = {"train": False} if _takes_train(module) else {}

  @jax.jit
  def init(key: Key[Array, ""]) -> dict[str, Any]:
    return dict(module.init(key, zero_inputs(image_shape), **flag))

  model_state = init(key)
  params = model_state.pop("params", {})
  for name in _growing(module, key, image_shape, params, model_state):
    del model_state[name]
  return params, model_state


def _growing(
  module: nn.Module, key: Any, spec: Any, params: Params, state: ModelState
) -> list[str]:
  """Collections that every pass adds to."""
  tuples = [  # as `sow` makes them
    name
    for name, collection in state.items()
    if any(
      isinstance(part, jax.tree_util.SequenceKey)
      for path, _ in jax.tree_util.tree_leaves_with_path(collection)
      for part in path
    )
  ]
  if not tuples:
    return []
  _, after = jax.eval_shape(
    lambda p, s: forward(module)(p, s, zero_inputs(spec), train=True, key=key),
    params,
    state,
  )

  def shapes(name: str, state: ModelState) -> Any:
    return jax.tree.map(jnp.shape, state[name])

  return [n for n in tuples if shapes(n, state) != shapes(n, after)]


def zero_inputs(image_shape: Any) -> Any:
  """One example of zeros, of a shape or a tree as `initialise` takes it."""
  spec = image_shape
  if isinstance(spec, Sequence) and all(
    isinstance(n, int | np.integer) for n in spec
  ):
    spec = jax.ShapeDtypeStruct(tuple(spec), jnp.float32)
  if not all(hasattr(x, "shape") for x in jax.tree.leaves(spec)):
    raise ValueError(
      f"image_shape={image_shape!r} must be one example's shape, or a tree of "
      "arrays or jax.ShapeDtypeStruct"
    )

  def zeros(x: Any) -> Array:
    return jnp.zeros((1, *x.shape), jax.dtypes.canonicalize_dtype(x.dtype))

  return jax.tree.map(zeros, spec)


def features(
  module: nn.Module, layer: str
) -> Callable[[Any, Any, Any], Float[Array, "batch features"]]:
  """Makes a function to a layer's outputs, one row an example.

  Args:
    module: a Linen model.
    layer: a submodule's name, with a slash between levels, as in
      "block0/attention".

  Returns:
    `(params, model_state, images) -> features`, in evaluation mode; axes after
    the first are laid side by side. It raises a ValueError that lists the
    layers where there is no such layer, or it is called more than once.

  Example:
    >>> import forgetsam as fs
    >>> module = fs.models.create("mlp", 3, hidden=(5,))
    >>> params, state = fs.models.initialise(
    ...   module, jax.random.key(0), (2, 2, 1)
    ... )
    >>> features(module, "Dense_0")(params, state, jnp.ones((4, 2, 2, 1))).shape
    (4, 5)
  """

  flag: dict[str, Any] = {"train": False} if _takes_train(module) else {}

  def apply(params: Any, model_state: Any, images: Any) -> Array:
    _, captured = module.apply(
      {"params": params, **model_state},
      images,
      **flag,
      capture_intermediates=True,
      mutable=["intermediates"],
    )
    found = {
      "/".join(key.key for key in path[:-1]): value
      for path, value in jax.tree_util.tree_leaves_with_path(
        captured["intermediates"], is_leaf=lambda x: isinstance(x, tuple)
      )
    }
    outputs = found.get(layer)
    if outputs is None or len(outputs) != 1:
      names = ", ".join(name for name in sorted(found) if name)
      raise ValueError(f"layer={layer!r} must be one of: {names}")
    (output,) = outputs
    return output.reshape(len(output), -1).astype(jnp.float32)

  return apply
