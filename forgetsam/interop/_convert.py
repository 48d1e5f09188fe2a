"""Conversion between our variables and the states of PyTorch models."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import traverse_util
from jaxtyping import Array, Key

from forgetsam import models
from forgetsam._paths import local_path
from forgetsam.interop._adapt import Variables, adapt, check_shapes
from forgetsam.interop._extras import leave_out
from forgetsam.interop._huggingface import check_description, names_in
from forgetsam.interop._names import Names, Path, torch_names
from forgetsam.interop._read import Arrays, read_state

_COUNTER = ".num_batches_tracked"


def from_torch(
  model_name: str,
  state_dict: Mapping[str, Any] | str | pathlib.Path,
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
  key: Key[Array, ""] | None = None,
  strict: bool = True,
  **options: Any,
) -> Variables:
  """Converts a PyTorch model's weights to our variables.

  Names are those of the paper's official code, of timm, of torchvision, and of
  Hugging Face's transformers (`ViTForImageClassification`, `ViTModel`, and
  those of ResNet). A
  dictionary around the weights ("state_dict", "model_state_dict" or "model")
  and a prefix of all names ("module." or "_orig_mod.") are dropped, with a line
  in the log. BatchNorm's `num_batches_tracked` is left out: nothing reads it.
  Weights become float32, which is exact for all narrower types.

  Args:
    model_name: a registered vision transformer or ResNet.
    state_dict: the weights by name, as arrays or tensors; or the path of a
      .safetensors file, or of a .pth, .pt, .pth.tar or .bin file. The latter
      need PyTorch, and are refused if they hold more than weights. Or a folder
      as Hugging Face saves it (model.safetensors, with its parts if it has
      many), whose config.json must not contradict the model.
    num_classes: number of logits wanted; a head of another size is replaced by
      an initial one, with a warning in the log. None keeps the file's head.
    image_size: side of the images wanted, in pixels; position embeddings for
      another size are interpolated, with a warning in the log. None keeps the
      file's size.
    key: seeds a new head, as `models.initialise` does; None is
      `jax.random.key(0)`.
    strict: whether to refuse what these models lack. False leaves out a class
      token and its position (the last norm then comes after the tokens' mean)
      and transformers' pooler, and takes weights without a head, each with a
      warning in the log: a start for training, which gives other outputs.
    **options: the model's options, where they are not its defaults.

  Returns:
    `{"params": ...}` and, for ResNets, "batch_stats" beside it.

  Raises:
    ImportError: a .pth file, and PyTorch is not installed.
    ValueError: names or shapes differ from the model's, in which case the
      message lists them all, or gives the prefix that the names have, as in
      files of Lightning and of weights' averages; or the file cannot be read.

  Example:
    >>> options = {"width": 4, "depth": 1, "num_heads": 2}
    >>> module = models.create("vit_cifar", 10, **options)
    >>> params, _ = models.initialise(module, jax.random.key(0), (8, 8, 3))
    >>> state = to_torch("vit_cifar", {"params": params}, **options)
    >>> state["blocks.0.attn.qkv.weight"].shape, state["head.weight"].shape
    ((12, 4), (10, 4))
    >>> variables = from_torch("vit_cifar", state, num_classes=3, **options)
    >>> variables["params"]["head"]["dense"]["kernel"].shape
    (4, 3)
  """
  state = read_state(state_dict)
  module = models.create(model_name, 1, **options)
  names = names_in(state, torch_names(model_name, module), module)
  if not isinstance(state_dict, Mapping):
    check_description(local_path("state_dict", state_dict), model_name, module)
  _refuse_prefix(model_name, state, names)
  changes: list[str] = []
  has_head = any(name.startswith(f"{names.head}.") for name in state)
  if not strict:
    state, changes = leave_out(state, names)
    names = names if has_head else names.without_head()
  shape_of = {name: array.shape for name, array in state.items()}.get
  classes = _axis(shape_of(f"{names.head}.weight"), 0, default=1)
  channels = _axis(shape_of(names.stem), 1, default=3)
  tokens = _axis(shape_of(names.positions or ""), 1, default=1)

  module = models.create(model_name, classes, **options)
  image_shape = _row_of_patches(module, tokens, channels)
  shapes = _shapes(module, image_shape)
  variables = _to_ours(model_name, state, names, shapes)
  _warn(model_name, changes)
  if num_classes is None and image_size is None:
    return variables

  if image_size is not None:
    image_shape = (image_size, image_size, channels)
  if num_classes is not None:
    module = models.create(model_name, num_classes, **options)
  initial = _shapes(module, image_shape)
  if not has_head and num_classes is None:
    del initial["params"]["head"]
  elif not has_head or num_classes not in (None, classes):
    key = jax.random.key(0) if key is None else key
    initial["params"]["head"] = _initial_head(module, key, image_shape)
  adapted = adapt(variables, initial)
  _warn(model_name, adapted.changes)
  return adapted.variables


def to_torch(
  model_name: str, variables: Variables, **options: Any
) -> dict[str, Any]:
  """Converts our variables to a PyTorch model's weights; inverts `from_torch`.

  Args:
    model_name: a registered vision transformer or ResNet.
    variables: "params" and, for ResNets, "batch_stats".
    **options: the model's options, where they are not its defaults.

  Returns:
    Contiguous, writable numpy arrays by name, as `torch.from_numpy` and
    `safetensors.numpy.save_file` want them. BatchNorm's `num_batches_tracked`
    is 0.

  Raises:
    ValueError: paths or shapes differ from the model's; the message lists them
      all.
  """
  names = torch_names(model_name, models.create(model_name, 1, **options))
  ours = traverse_util.flatten_dict(variables)
  shapes = {"/".join(path): np.shape(leaf) for path, leaf in ours.items()}
  shape_of = {
    entry.name: shapes.get("/".join(entry.paths[0])) for entry in names.entries
  }.get
  classes = _axis(shape_of(f"{names.head}.bias"), 0, default=1)
  channels = _axis(shape_of(names.stem), 2, default=3)
  tokens = _axis(shape_of(names.positions or ""), 1, default=1)
  module = models.create(model_name, classes, **options)
  expected = traverse_util.flatten_dict(
    _shapes(module, _row_of_patches(module, tokens, channels))
  )
  check_shapes(
    shapes,
    {"/".join(path): leaf.shape for path, leaf in expected.items()},
    f"variables for {model_name!r}",
  )
  # A copy of its own: PyTorch warns of arrays that it may not write to.
  state = {
    entry.name: np.array(entry.to_torch(variables), order="C")
    for entry in names.entries
  }
  state.update({name: np.zeros((), np.int64) for name in names.counters})
  return state


def _warn(model_name: str, changes: Sequence[str]) -> None:
  for change in changes:
    logging.warning("%s: %s.", model_name, change)


def _refuse_prefix(model_name: str, state: Arrays, names: Names) -> None:
  """Names what a training framework put before the model's own names."""
  expected = [entry.name for entry in names.entries]

  def has_most(prefix: str) -> bool:
    found = sum(prefix + name in state for name in expected)
    return prefix != "" and 2 * found > len(expected)

  stems = (name for name in state if name.endswith(names.stem))
  prefixes = {name.removesuffix(names.stem) for name in stems}
  if not (found := sorted(filter(has_most, prefixes))):
    return
  others = [name for name in state if not name.startswith(tuple(found))]
  beside = f", beside {', '.join(others[:3])}" if others else ""
  raise ValueError(
    f"state_dict for {model_name!r} has the prefix "
    f"{' or '.join(map(repr, found))} before the model's names{beside}: pass "
    f"(or save) {{name.removeprefix({found[0]!r}): value for name, value in "
    f"state_dict.items() if name.startswith({found[0]!r})}}"
  )


def _to_ours(
  model_name: str, state: Arrays, names: Names, shapes: Variables
) -> Variables:
  state = {k: v for k, v in state.items() if not k.endswith(_COUNTER)}
  empty = jax.tree.map(lambda x: np.empty(x.shape, np.bool_), shapes)
  try:
    check_shapes(
      {name: array.shape for name, array in state.items()},
      {entry.name: entry.to_torch(empty).shape for entry in names.entries},
      f"state_dict for {model_name!r}",
    )
  except ValueError as error:
    if names.class_token not in state:
      raise
    raise ValueError(
      f"{error} The model has no class token: strict=False leaves it out."
    ) from error
  flat: dict[Path, Array] = {}
  for entry in names.entries:
    array = state[entry.name]
    if array.dtype.kind != "f":
      raise ValueError(
        f"state_dict[{entry.name!r}] is {array.dtype}; weights must be "
        "floating-point numbers."
      )
    for path, ours in entry.to_ours(array, shapes).items():
      flat[path] = jnp.array(ours)
  return traverse_util.unflatten_dict(flat)


def _axis(shape: tuple[int, ...] | None, axis: int, default: int) -> int:
  """A size, or the default where the array is missing or odd."""
  return ((shape or ())[axis : axis + 1] or (default,))[0]


def _row_of_patches(
  module: nn.Module, tokens: int, channels: int
) -> tuple[int, int, int]:
  """An image with this many patches: shapes depend on their number only."""
  if isinstance(module, models.ViT):
    return module.patch_size, module.patch_size * tokens, channels
  return 32, 32, channels


def _shapes(module: nn.Module, image_shape: tuple[int, ...]) -> Variables:
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return dict(jax.eval_shape(module.init, jax.random.key(0), images))


def _initial_head(
  module: nn.Module, key: Key[Array, ""], image_shape: tuple[int, ...]
) -> Any:
  """The head that `initialise` draws; the compiler drops all the rest."""

  @jax.jit
  def init(key: Key[Array, ""]) -> Any:
    return module.init(key, jnp.zeros((1, *image_shape)))["params"]["head"]

  return init(key)
