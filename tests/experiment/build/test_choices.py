"""Every name that the table of keys lists is one that builders know."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from needed_options import NEEDED

from forgetsam.experiment import base_config, build
from forgetsam.experiment.config import KEYS

W = {"kernel": jnp.array([[3.0, 4.0]])}


def names(key: str) -> tuple[str, ...]:
  assert KEYS[key].rule.choices
  return KEYS[key].rule.choices


CHOICES = [
  *(
    (name, "none", "perturbed_gradient") for name in names("perturbation.name")
  ),
  *(("sam", name, "perturbed_gradient") for name in names("combine.name")),
  *(("sam", "none", name) for name in names("method.name")),
]


@pytest.mark.parametrize(("name", "combine", "method"), CHOICES)
def test_every_perturbation_rule_and_method_is_built(
  name: str, combine: str, method: str
):
  config = base_config()
  config.perturbation.name, config.combine.name = name, combine
  config.method.name = method
  for group in (config.perturbation, config.combine, config.method):
    group.options.update(NEEDED.get(group.name, {}))

  def grad_fn(w):
    return {"kernel": 2 * w["kernel"]}

  @jax.jit  # with traced numbers, as in a sweep
  def descent(rho: jax.Array, seed: jax.Array):
    schedule = optax.constant_schedule(rho)
    perturb = build.build_perturb(
      config,
      schedule,
      seed=seed,
      num_steps=2,
      learning_rate=schedule,
      num_examples=8,
    )
    if perturb is None:
      return None
    return perturb.update(
      W,
      perturb.init(W),
      W,
      grad_fn=grad_fn,
      value_and_grad_fn=lambda w: (jnp.sum(w["kernel"] ** 2), grad_fn(w)),
      ascent_fn=grad_fn,
      losses_fn=lambda w: w["kernel"][0] ** 2,
      previous_value_and_grad_fn=lambda w: (
        jnp.sum(w["kernel"] ** 2),
        grad_fn(w),
      ),
      opt_state=optax.sgd(0.1, momentum=0.9).init(W),
    )[0]

  grads = descent(0.5, 3)
  assert (grads is None) == (name == "none")
  assert grads is None or np.isfinite(grads["kernel"]).all()


@pytest.mark.parametrize("name", names("loss.name"))
def test_every_loss_is_built(name: str):
  config = base_config()
  config.loss.name = name
  # Of two classes at zero logits: log 2 for softmax, and one more for sigmoid.
  loss = build.build_loss(config, 2)(jnp.zeros((1, 2)), jnp.array([1]))
  classes = 2 if name.startswith("sigmoid") else 1
  assert float(loss) == pytest.approx(classes * np.log(2))


@pytest.mark.parametrize("name", names("ascent.name"))
def test_every_ascent_is_built(name: str):
  config = base_config()
  config.ascent.name = name
  signal = build.build_ascent(config, 2)(jnp.zeros((1, 2)), jnp.array([1]))
  assert signal.shape == (1, 2)


@pytest.mark.parametrize("schedule", names("schedule.name"))
@pytest.mark.parametrize("name", names("optimizer.name"))
def test_every_optimizer_and_schedule_is_built(name: str, schedule: str):
  config = base_config()
  config.optimizer.name, config.schedule.name = name, schedule
  rate = build.build_learning_rate(config, steps_per_epoch=3)
  optimizer = build.build_optimizer(config, rate)
  updates, _ = optimizer.update(W, optimizer.init(W), W)
  assert float(rate(0)) == 0.0
  np.testing.assert_array_equal(updates["kernel"], 0.0)
