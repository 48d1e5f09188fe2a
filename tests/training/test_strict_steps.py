"""Steps of every family of models promote neither ranks nor dtypes."""

import jax
import jax.numpy as jnp
import optax
import pytest
from strict import strict_jax

import forgetsam as fs

MODELS = {
  "mlp": {"hidden": (8,), "dropout": 0.1},
  "cnn": {"widths": (4, 8), "batch_norm": True, "dtype": "bfloat16"},
  "vit_tiny": {"width": 8, "depth": 1, "num_heads": 2, "patch_size": 4},
  "resnet18_cifar": {"width": 4, "stage_sizes": (1, 1, 1, 1)},
}
LOSSES = {
  "sigmoid": fs.sigmoid_cross_entropy(label_smoothing=0.1),
  "softmax": fs.softmax_cross_entropy(),
}
BATCH = {"image": jnp.ones((8, 8, 8, 1)), "label": jnp.arange(8) % 3}
OTHER_BATCHES = [
  BATCH | {"mask": jnp.arange(8) < 6},
  BATCH | {"label": BATCH["label"].astype(jnp.uint8), "mask": jnp.arange(8)},
  BATCH | {"label": jnp.eye(3)[BATCH["label"]], "mask": jnp.ones(8)},
]


@pytest.mark.parametrize(
  ("model", "activation"),
  list(zip(MODELS, ["sigmoid", "softmax"] * 2, strict=True)),
)
def test_training_and_evaluation(model, activation):
  module = fs.models.create(model, 3, **MODELS[model])
  forward = fs.models.forward(module)
  optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0, 0.1, 2, 9))
  rho = optax.linear_schedule(0.1, 0.0, 9)
  perturb = fs.perturbed_gradient(fs.sam(rho), fs.surrogate_gap(0.1))
  step = fs.make_train_step(
    forward,
    loss=LOSSES[activation],
    ascent=fs.output_bias_forgetting(activation=activation),
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=4,
  )
  evaluate = fs.make_eval_step(forward)
  key = jax.random.key(0)

  def both(batch):
    params, model_state = fs.models.initialise(module, key, (8, 8, 1))
    state = fs.create_train_state(params, model_state, optimizer, perturb)
    state, metrics = step(state, batch, key)
    return metrics, evaluate(state.params, state.model_state, batch)

  batches = [BATCH]
  if model == "mlp":
    batches += OTHER_BATCHES
  with strict_jax():
    for batch in batches:
      metrics, sums = jax.eval_shape(both, batch)
      assert metrics["loss"].dtype == sums["loss"].dtype == jnp.float32
