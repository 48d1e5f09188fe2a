"""PyTorch states from memory and from files, as plain arrays."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Shaped

from forgetsam._lab import lab_packages
from forgetsam._paths import local_path

Arrays = dict[str, Shaped[np.ndarray, "..."]]

TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".bin")
SAFETENSORS_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"
_IN_FOLDERS = (
  "model.safetensors",
  f"model{_INDEX}",
  "pytorch_model.bin",
)
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Added by DistributedDataParallel and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


def read_state(source: Mapping[str, Any] | str | Path) -> Arrays:
  """Reads a PyTorch state, without what training wrapped it in, in float32."""
  state = source if isinstance(source, Mapping) else _read_file(source)
  state = _unwrap(state)
  if inner := [name for name, value in state.items() if _holds_arrays(value)]:
    entries = " or ".join(f"state[{name!r}]" for name in inner)
    raise ValueError(
      f"state_dict has its weights under {', '.join(map(repr, inner))}, and "
      f"under none of {', '.join(_WRAPPERS)}: pass (or save) {entries} itself."
    )
  return {name: _array(name, value) for name, value in state.items()}


def weights_in(folder: Path) -> Path | None:
  """The weights in a folder as Hugging Face and timm save it, if any."""
  paths = (folder / name for name in _IN_FOLDERS)
  return next((path for path in paths if path.is_file()), None)


def _read_file(source: str | Path) -> Mapping[str, Any]:
  path = local_path("state_dict", source)
  if path.is_dir():
    found = weights_in(path)
    if found is None:
      raise ValueError(
        f"state_dict={str(source)!r} is a folder with none of "
        f"{', '.join(_IN_FOLDERS)}: pass a file of weights"
      )
    path = found
  if path.name.endswith(_INDEX):
    return _read_parts(path)
  if not path.is_file():
    raise ValueError(f"state_dict={str(source)!r} is not a file.")
  if path.name.endswith(SAFETENSORS_SUFFIX):
    return _read_safetensors(path)
  if path.name.endswith(TORCH_SUFFIXES):
    return _read_torch(path)
  raise ValueError(
    f"state_dict={str(source)!r} has an unknown suffix; known are "
    f"{SAFETENSORS_SUFFIX} and {', '.join(TORCH_SUFFIXES)}."
  )


def _read_parts(index: Path) -> Mapping[str, Any]:
  """Joins the files that an index lists."""
  try:
    files = json.loads(index.read_text())["weight_map"].values()
  except (KeyError, AttributeError, TypeError, ValueError) as error:
    raise ValueError(f"{index} lists no files of weights: {error!r}") from error
  state: dict[str, Any] = {}
  for name in sorted(set(files)):
    state |= _read_safetensors(index.parent / name)
  return state


def _read_safetensors(path: Path) -> Mapping[str, Any]:
  with lab_packages(f"reading {path}"):
    import safetensors
    import safetensors.numpy

  try:
    return safetensors.numpy.load_file(path)
  except (FileNotFoundError, safetensors.SafetensorError) as error:
    raise ValueError(
      f"{path} is no whole .safetensors file: {error}"
    ) from error


def _read_torch(path: Path) -> Mapping[str, Any]:
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      f"reading {path} needs PyTorch: install it (pip install torch), or "
      "convert the file to .safetensors where PyTorch is installed."
    ) from error
  try:
    # Nothing but arrays and plain containers: unpickling can run any code.
    state = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    raise ValueError(
      f"{path} is refused: it holds more than weights, and loading it could "
      "run code. If you trust it, load it yourself and pass the dictionary of "
      f"its weights. PyTorch says: {error}"
    ) from error
  except (RuntimeError, EOFError, OSError) as error:
    raise ValueError(f"{path} is no whole PyTorch file: {error}") from error
  if not isinstance(state, Mapping):
    raise ValueError(
      f"{path} holds a {type(state).__name__}, not a dictionary of weights."
    )
  return state


def _unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
  """Strips dictionaries around the state and prefixes of its names."""
  for wrapper in _WRAPPERS:
    if isinstance(state.get(wrapper), Mapping):
      logging.info("The weights are taken from the entry %r.", wrapper)
      return _unwrap(state[wrapper])
  for prefix in _PREFIXES:
    if state and all(name.startswith(prefix) for name in state):
      logging.info("The prefix %r of all names is dropped.", prefix)
      return _unwrap({k.removeprefix(prefix): v for k, v in state.items()})
  return state


def _holds_arrays(value: Any) -> bool:
  return (
    isinstance(value, Mapping)
    and bool(value)
    and all(hasattr(x, "shape") for x in value.values())
  )


def _array(name: str, value: Any) -> Shaped[np.ndarray, "..."]:
  if hasattr(value, "detach"):  # a torch.Tensor; numpy has no bfloat16
    value = value.detach().cpu()
    value = value.float() if value.is_floating_point() else value
  array = np.asarray(value)
  if array.dtype == object or array.dtype.kind in "US":
    raise ValueError(
      f"state_dict[{name!r}] is a {type(value).__name__}, not an array; pass "
      "the dictionary of a model's weights."
    )
  # "V": bfloat16, which numpy only knows as an extension.
  return array.astype(np.float32) if array.dtype.kind in "fV" else array
