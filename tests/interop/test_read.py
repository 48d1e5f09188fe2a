"""States from dictionaries and .safetensors files; no PyTorch needed."""

import json
import logging
import struct
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from torch_states import (
  RESNET_NAME,
  TINY_RESNET,
  TINY_RESNET_SHAPES,
  TINY_VIT,
  TINY_VIT_SHAPES,
  VIT_NAME,
  draw,
)

import forgetsam as fs


@pytest.fixture
def state():
  return draw(TINY_VIT_SHAPES)


def _import(source):
  return fs.interop.from_torch(VIT_NAME, source, **TINY_VIT)


def _same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def _safetensors(state):
  """A .safetensors file, written from the format's description."""
  header, data = {"__metadata__": {"format": "pt"}}, b""
  for name, array in state.items():
    start, data = len(data), data + array.astype("<f4").tobytes()
    header[name] = {
      "dtype": "F32",
      "shape": list(array.shape),
      "data_offsets": [start, len(data)],
    }
  header = json.dumps(header).encode()
  return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_safetensors_from_its_bytes(state, tmp_path, as_path):
  file = tmp_path / "weights.safetensors"
  file.write_bytes(_safetensors(state))
  _same(_import(as_path(file)), _import(state))


def test_bfloat16_is_read_exactly(state, tmp_path):
  low = {k: v.astype(ml_dtypes.bfloat16) for k, v in state.items()}
  file = tmp_path / "weights.safetensors"
  safetensors.numpy.save_file(low, file)
  exact = {k: v.astype(np.float32) for k, v in low.items()}
  _same(_import(file), _import(exact))


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_wrappers_are_stripped_and_said_so(state, wrapper, prefix, caplog):
  wrapped = {
    wrapper: {prefix + name: value for name, value in state.items()},
    "epoch": 3,
    "optimizer": {"state": {}},
  }
  with caplog.at_level(logging.INFO):
    variables = _import(wrapped)
  _same(variables, _import(state))
  assert f"from the entry '{wrapper}'" in caplog.text
  assert ("prefix 'module.' of all names is dropped" in caplog.text) is bool(
    prefix
  )


def test_a_prefix_of_some_names_is_none(state):
  some = {
    f"module.{k}" if k.startswith("head") else k: v for k, v in state.items()
  }
  with pytest.raises(ValueError, match=r"unexpected: module\.head\.bias, mod"):
    _import(some)


@pytest.mark.parametrize(
  ("prefix", "others"),
  [
    ("model.", {}),  # Lightning
    ("model.", {"criterion.weight": np.ones(3, np.float32)}),
    ("module.", {"n_averaged": np.array(7)}),  # PyTorch's AveragedModel
    ("ema_model.module.", {"initted": np.array(True), "step": np.array(9)}),
  ],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_a_prefix_is_named_with_what_to_do(state, prefix, others, wrapper):
  named = {prefix + name: value for name, value in state.items()} | others
  with pytest.raises(ValueError, match="has the prefix") as error:
    _import({wrapper: named} if wrapper else named)
  said = str(error.value)
  assert f"{{name.removeprefix({prefix!r}): value for" in said
  assert all(name in said for name in others)
  # The message's own words.
  _same(
    _import(
      {
        name.removeprefix(prefix): value
        for name, value in named.items()
        if name.startswith(prefix)
      }
    ),
    _import(state),
  )


def test_two_networks_in_one_file_are_both_named(state):
  both = {
    f"{who}.{k}": v for who in ("student", "teacher") for k, v in state.items()
  }
  with pytest.raises(ValueError, match=r"'student\.'.*'teacher\.'"):
    _import(both)


@pytest.mark.parametrize("entry", ["state_dict_ema", "ema", "net"])
def test_weights_under_another_entry_are_named(state, entry):
  saved = {"epoch": 3, entry: state, "optimizer": {"state": {}}}
  with pytest.raises(ValueError, match=rf"under '{entry}'.*state\['{entry}'\]"):
    _import(saved)


class _Tensor:
  """The part of `torch.Tensor` that the reader uses."""

  def __init__(self, array):
    self.array, self.detached = array, False

  def detach(self):
    tensor = _Tensor(self.array)
    tensor.detached = True
    return tensor

  def cpu(self):
    return self

  def is_floating_point(self):
    return self.array.dtype.kind != "i"

  def float(self):
    tensor = _Tensor(self.array.astype(np.float32))
    tensor.detached = self.detached
    return tensor

  def __array__(self, dtype=None, copy=None):
    assert self.detached
    if self.array.dtype == ml_dtypes.bfloat16:
      raise TypeError("Got unsupported ScalarType BFloat16")
    return self.array


def test_tensors_are_taken_as_arrays():
  state = draw(TINY_RESNET_SHAPES)
  low = {
    k: v if k.endswith("tracked") else v.astype(ml_dtypes.bfloat16)
    for k, v in state.items()
  }

  def convert(given):
    return fs.interop.from_torch(RESNET_NAME, given, **TINY_RESNET)

  _same(convert({k: _Tensor(v) for k, v in low.items()}), convert(low))


def test_what_is_no_array_is_refused_by_name(state):
  with pytest.raises(ValueError, match=r"\['lr'\] is a str, not an array"):
    _import({**state, "lr": "0.1"})
  with pytest.raises(ValueError, match=r"\['optimizer'\] is a dict"):
    _import({"net": state["head.bias"], "optimizer": {}})


def test_files_that_are_missing_or_of_an_unknown_kind(tmp_path):
  with pytest.raises(ValueError, match=r"none\.safetensors' is not a file"):
    _import(tmp_path / "none.safetensors")
  file = tmp_path / "weights.onnx"
  file.write_bytes(b"")
  with pytest.raises(ValueError, match=r"\.onnx' has an unknown suffix.*\.pth"):
    _import(file)


def test_a_cut_safetensors_file(state, tmp_path):
  file = tmp_path / "cut.safetensors"
  file.write_bytes(_safetensors(state)[:-1])
  with pytest.raises(ValueError, match=r"cut\.safetensors is no whole"):
    _import(file)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".bin"])
def test_without_pytorch_the_error_says_what_to_do(
  tmp_path, monkeypatch, suffix
):
  monkeypatch.setitem(sys.modules, "torch", None)
  file = tmp_path / f"weights{suffix}"
  file.write_bytes(b"never read")
  with pytest.raises(ImportError, match=r"pip install torch.*\.safetensors"):
    _import(file)


def test_importing_the_package_imports_no_reader():
  code = (
    "import sys, forgetsam; print(forgetsam.interop.from_torch.__name__, "
    "sorted({'torch', 'safetensors'} & set(sys.modules)))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert result.stdout.split(maxsplit=1) == ["from_torch", "[]\n"]
