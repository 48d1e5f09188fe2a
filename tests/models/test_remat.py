"""Recomputing activations changes the memory, not the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forgetsam import models

OPTIONS = {
  "mlp": {"hidden": (6,)},
  "cnn": {"widths": (4,)},
  "vit_tiny": {"width": 8, "depth": 1, "num_heads": 2},
  "resnet18_cifar": {"width": 4, "stage_sizes": (1,)},
  "wrn28_10": {"width": 4, "stage_sizes": (1,)},
}


def _value_and_grad(random_variables, name, remat, **options):
  """A scalar, its state and its gradients, as a function of parameters."""
  module = models.create(name, 3, dropout=0.3, remat=remat, **options)
  forward = models.forward(module)
  variables = random_variables(module, (8, 8, 1))
  params = variables.pop("params")
  images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))

  def loss(params):
    logits, state = forward(
      params, variables, images, train=True, key=jax.random.key(0)
    )
    return jnp.mean(jnp.square(logits - 1.0)), state

  return jax.value_and_grad(loss, has_aux=True), params


@pytest.mark.parametrize("name", OPTIONS)
def test_the_numbers_stay(random_variables, name):
  results = []
  for remat in (False, True):
    grad_fn, params = _value_and_grad(
      random_variables, name, remat, **OPTIONS[name]
    )
    results.append(jax.jit(grad_fn)(params))
  # The same names, too: either model reads the other's checkpoints.
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    *results,
  )


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mlp", {"hidden": (4, 5, 6)}),
    ("cnn", {"widths": (2, 3, 4)}),
    ("vit_tiny", {"width": 8, "depth": 3, "num_heads": 2}),
    ("resnet18_cifar", {"width": 4, "stage_sizes": (2, 1)}),
  ],
)
def test_every_block_is_recomputed(random_variables, name, options):
  def recomputed(remat):
    grad_fn, params = _value_and_grad(random_variables, name, remat, **options)
    equations = jax.make_jaxpr(grad_fn)(params).eqns
    return sum("remat" in e.primitive.name for e in equations)

  assert recomputed(remat=True) == 3
  assert recomputed(remat=False) == 0
