"""Writes resnet18_cifar_tiny.pth.tar; needs PyTorch.

A training checkpoint as DistributedDataParallel leaves it, of the weights that
torch_states.py draws, so that no test depends on the file for its numbers.
"""

from pathlib import Path

from torch_states import TINY_RESNET_SHAPES, draw


def main():
  import torch

  weights = {
    f"module.{name}": torch.from_numpy(array)
    for name, array in draw(TINY_RESNET_SHAPES).items()
  }
  path = Path(__file__).parent / "resnet18_cifar_tiny.pth.tar"
  torch.save({"epoch": 3, "state_dict": weights}, path)


if __name__ == "__main__":
  main()
