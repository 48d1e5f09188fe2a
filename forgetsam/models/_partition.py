"""How the layers of this package's models divide over devices."""

import flax.linen as nn
from jax.sharding import PartitionSpec

from forgetsam.models.small import MLP
from forgetsam.models.vit import ViT

_COLUMNS = PartitionSpec(None, "model")
_ROWS = PartitionSpec("model", None)
_VIT = (
  (r".*/(query|key|value)/kernel", _COLUMNS),
  (r".*/(query|key|value)/bias", _ROWS),
  (r".*/out/kernel", _ROWS),
  (r".*/mlp1/kernel", _COLUMNS),
  (r".*/mlp1/bias", PartitionSpec("model")),
  (r".*/mlp2/kernel", _ROWS),
)


def tensor_parallel_rules(
  module: nn.Module,
) -> tuple[tuple[str, PartitionSpec], ...]:
  """Rules by which `param_shardings` divides layers over an axis "model".

  Pairs of layers share their hidden channels, or attention heads: a device
  computes its part of both, and one sum over devices follows the second.

  Args:
    module: a model. Those without such rules, as all but `MLP` and `ViT`, have
      an empty tuple.

  Returns:
    Pairs of a regular expression for paths and a `PartitionSpec`.

  Example:
    >>> [path for path, _ in tensor_parallel_rules(MLP(10, hidden=(8,)))]
    ['Dense_0/kernel', 'Head_0/dense/kernel']

  References:
    Shoeybi et al., *Megatron-LM*, 2019, section 3.
  """
  if isinstance(module, ViT):
    return _VIT
  if not isinstance(module, MLP):
    return ()
  layers = [f"Dense_{i}" for i in range(len(module.hidden))]
  if len(layers) % 2:
    layers.append("Head_0/dense")
  return tuple(
    (f"{name}/kernel", _ROWS if i % 2 else _COLUMNS)
    for i, name in enumerate(layers)
  )
