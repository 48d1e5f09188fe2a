"""Files that PyTorch wrote; these tests need it."""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
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

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.long

# Written by make_pth.py in this folder.
FIXTURE = Path(__file__).parent / "resnet18_cifar_tiny.pth.tar"


def _import(source):
  return fs.interop.from_torch(RESNET_NAME, source, **TINY_RESNET)


def _same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_a_training_checkpoint_of_a_wrapped_model():
  _same(_import(FIXTURE), _import(draw(TINY_RESNET_SHAPES)))


def test_pytorch_loads_what_we_wrote(tmp_path):
  variables = _import(FIXTURE)
  state = fs.interop.to_torch(RESNET_NAME, variables, **TINY_RESNET)
  tensors = {k: torch.from_numpy(v) for k, v in state.items()}
  norm = torch.nn.BatchNorm2d(4)
  part = "layer2.0.downsample.1."
  norm.load_state_dict(
    {k.removeprefix(part): v for k, v in tensors.items() if part in k}
  )
  file = tmp_path / "ours.pth"
  torch.save(tensors, file)
  _same(_import(str(file)), variables)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_parameters(tmp_path, dtype):
  state = {
    name: torch.nn.Parameter(torch.from_numpy(array).to(dtype))
    for name, array in draw(TINY_VIT_SHAPES).items()
  }
  exact = {k: v.detach().float().numpy() for k, v in state.items()}
  file = tmp_path / "half.pt"
  torch.save(state, file)
  for source in (state, file):
    variables = fs.interop.from_torch(VIT_NAME, source, **TINY_VIT)
    _same(variables, fs.interop.from_torch(VIT_NAME, exact, **TINY_VIT))


class _Planted:
  """Unpickled, it would create a folder."""

  def __init__(self, target):
    self.target = target

  def __reduce__(self):
    return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_that_wants_to_run_code_is_refused(tmp_path, wrapped):
  target, file = tmp_path / "planted", tmp_path / "evil.pth"
  state = dict(torch.load(FIXTURE, weights_only=True)["state_dict"])
  state["module.planted"] = _Planted(target)
  torch.save({"state_dict": state} if wrapped else state, file)
  with pytest.raises(ValueError, match=r"evil\.pth is refused.*run code"):
    _import(file)
  assert not target.exists()
  # The plant is alive: loading it without care runs it.
  torch.load(file, weights_only=False)
  assert target.exists()


def test_files_that_are_no_states(tmp_path):
  file = tmp_path / "list.pth"
  torch.save([1, 2], file)
  with pytest.raises(ValueError, match="holds a list"):
    _import(file)
  file.write_bytes(FIXTURE.read_bytes()[:-100])
  with pytest.raises(ValueError, match=r"list\.pth is no whole PyTorch file"):
    _import(file)
  file.write_bytes(b"")
  with pytest.raises(ValueError, match=r"list\.pth is no whole PyTorch file"):
    _import(file)


def test_a_missing_pytorch_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ImportError, match="pip install torch"):
    _import(FIXTURE)
