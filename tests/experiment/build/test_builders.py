"""From configurations to optax chains: schedules, decay, clip, order."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import config_dict

import forgetsam as fs
from forgetsam.experiment import build as builders
from forgetsam.experiment.config import ConfigError, load_config_file

ROOT = Path(__file__).resolve().parents[3]


def make_config(
  variant: str = "plain", **changes: Any
) -> config_dict.ConfigDict:
  config = load_config_file(f"{ROOT}/configs/digits.py:{variant}")
  config.epochs = 10
  config.optimizer.learning_rate = 0.8
  config.schedule.warmup_epochs = 2.0
  config.schedule.min_learning_rate = 0.08
  config.optimizer.clip = None
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


def test_linear_schedule():
  config = make_config(schedule__name="linear")
  rate = builders.build_learning_rate(config, steps_per_epoch=5)
  # 10 steps from 0 to 0.8, then 40 steps to 0.08.
  expected = {0: 0.0, 5: 0.4, 10: 0.8, 30: 0.44, 50: 0.08, 60: 0.08}
  for step, value in expected.items():
    assert float(rate(step)) == pytest.approx(value, abs=1e-6), step


def test_cosine_schedule():
  config = make_config(schedule__name="cosine")
  rate = builders.build_learning_rate(config, steps_per_epoch=5)
  # Half the cosine's way is reached after half the steps of decay.
  expected = {0: 0.0, 5: 0.4, 10: 0.8, 30: 0.44, 50: 0.08}
  expected[20] = 0.08 + 0.72 * 0.5 * (1 + np.cos(np.pi / 4))
  for step, value in expected.items():
    assert float(rate(step)) == pytest.approx(value, abs=1e-6), step


def test_without_warmup_the_first_step_is_the_largest():
  config = make_config(schedule__warmup_epochs=0.0)
  rate = builders.build_learning_rate(config, steps_per_epoch=5)
  assert float(rate(0)) == pytest.approx(0.8)


def test_only_matrices_decay():
  params = {
    "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "norm": {"scale": jnp.ones(3)},
    "conv": {"kernel": jnp.ones((3, 3, 1, 2))},
    "pos_embed": jnp.ones((1, 4, 3)),
  }
  assert builders.decays(params) == {
    "dense": {"kernel": True, "bias": False},
    "norm": {"scale": False},
    "conv": {"kernel": True},
    "pos_embed": False,
  }


def updated(config: config_dict.ConfigDict, grads: Any, steps: int) -> Any:
  """Parameters from ones after steps with constant gradients, at rate 0.5."""
  optimizer = builders.build_optimizer(config, optax.constant_schedule(0.5))
  params = jax.tree.map(jnp.ones_like, grads)
  state = optimizer.init(params)
  for _ in range(steps):
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params


GRADS = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 2.0)}


def test_sgdw_has_momentum_and_decay_of_matrices():
  config = make_config(
    optimizer__name="sgdw",
    optimizer__momentum=0.5,
    optimizer__weight_decay=0.1,
  )
  # kernel: 1 - 0.5 (3 + 0.1) = -0.55; -0.55 - 0.5 (4.5 - 0.055) = -2.7725
  # bias: 1 - 0.5 * 2 = 0; 0 - 0.5 * 3 = -1.5
  params = updated(config, GRADS, steps=2)
  np.testing.assert_allclose(params["kernel"], -2.7725, rtol=1e-6)
  np.testing.assert_allclose(params["bias"], -1.5, rtol=1e-6)


def test_adamw_decays_matrices_only():
  config = make_config(optimizer__name="adamw", optimizer__weight_decay=0.1)
  # Adam's first step has length 1 whatever the gradient.
  params = updated(config, GRADS, steps=1)
  np.testing.assert_allclose(params["kernel"], 1 - 0.5 * 1.1, rtol=1e-5)
  np.testing.assert_allclose(params["bias"], 0.5, rtol=1e-5)


def test_clip_is_by_the_global_norm_before_the_optimizer():
  config = make_config(
    optimizer__name="sgdw",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    optimizer__clip=1.0,
  )
  norm = np.sqrt(4 * 9 + 2 * 4)
  params = updated(config, GRADS, steps=1)
  np.testing.assert_allclose(params["kernel"], 1 - 1.5 / norm, rtol=1e-5)
  np.testing.assert_allclose(params["bias"], 1 - 1.0 / norm, rtol=1e-5)


def test_decoupled_sharpness_enters_no_momentum():
  config = make_config(
    "sam",
    optimizer__name="sgdw",
    optimizer__momentum=0.5,
    combine__name="weighted",
    combine__decoupled=True,
    combine__gamma=0.75,
  )
  optimizer = builders.build_optimizer(config, lambda step: jnp.float32(0.5))
  params = {"bias": jnp.ones(2)}
  state = optimizer.init(params)
  # 1 - 0.5 (2 + 3 (5 - 2)) = -4.5; -4.5 - 0.5 (3 + 9) = -10.5
  for _ in range(2):
    updates, state = optimizer.update(
      {"bias": jnp.full(2, 5.0)},
      state,
      params,
      clean_grads={"bias": jnp.full(2, 2.0)},
    )
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(params["bias"], -10.5, rtol=1e-6)
  perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert_same_steps(perturb, fs.perturbed_gradient(fs.sam(0.3)))


@pytest.mark.parametrize(
  "changes",
  [
    {"combine__name": "weighted", "combine__gamma": 0.0},
    {"combine__name": "gnp", "combine__options": {"alpha": 0.0}},
    {
      "combine__name": "surrogate_gap",
      "combine__alpha": 0.0,
      "combine__options": {"minimize": "clean"},
    },
  ],
)
def test_rules_that_descend_the_loss_descend_no_other_objective(changes: Any):
  perturb = builders.build_perturb(
    make_config("obf", **changes), optax.constant_schedule(0.3), 0, 9
  )
  assert perturb is not None
  w = jnp.array([1.0, 2.0])
  grads, _ = perturb.update(-w, perturb.init(w), w, grad_fn=lambda p: 3 * p)
  np.testing.assert_allclose(grads, [3.0, 6.0], rtol=1e-6)


def test_adaptive_clip_is_by_each_units_weights():
  config = make_config(
    optimizer__name="sgdw",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    optimizer__clip_adaptive=0.1,
  )
  # A column's weights have the norm sqrt(2), and its gradients 3 sqrt(2).
  params = updated(config, GRADS, steps=1)
  np.testing.assert_allclose(params["kernel"], 1 - 0.5 * 0.1, rtol=1e-5)
  np.testing.assert_allclose(params["bias"], 1 - 0.5 * 0.1, rtol=1e-5)


def test_shrink_and_perturb_follows_the_learning_rate():
  config = make_config(
    optimizer__name="sgdw",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    optimizer__shrink_and_perturb=0.4,
  )
  # f = 0.4 * 0.5 / 0.8 = 0.25: 1 -> 0 by the gradient, then a quarter back.
  params = updated(config, GRADS, steps=1)
  np.testing.assert_allclose(params["bias"], 0.25, rtol=1e-5)


def test_rho_schedules():
  rate = optax.linear_schedule(0.8, 0.08, 10)
  constant = builders.build_rho(make_config("sam"), rate)
  assert float(constant(7)) == pytest.approx(0.2)
  config = make_config(
    "sam",
    perturbation__rho_schedule="lr_proportional",
    perturbation__rho_min=0.1,
  )
  follows = builders.build_rho(config, rate)
  assert float(follows(0)) == pytest.approx(0.2)
  assert float(follows(5)) == pytest.approx(0.15)
  assert float(follows(10)) == pytest.approx(0.1)


LOGITS = jnp.array([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]])
LABELS = jnp.array([0, 2])


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_loss(name: str):
  config = make_config(
    loss__name=f"{name}_cross_entropy", loss__label_smoothing=0.1
  )
  factory = getattr(fs, f"{name}_cross_entropy")
  expected = factory(label_smoothing=0.1)(LOGITS, LABELS)
  assert builders.build_loss(config, 3)(LOGITS, LABELS) == expected


def test_ascent():
  config = make_config("sam", loss__label_smoothing=0.1)
  smooth = fs.sigmoid_cross_entropy(label_smoothing=0.1)
  np.testing.assert_array_equal(
    builders.build_ascent(config, 3)(LOGITS, LABELS),
    fs.loss_ascent(smooth)(LOGITS, LABELS),
  )
  config = make_config(
    "obf", ascent__lam=0.2, ascent__gamma=0.5, ascent__activation="softmax"
  )
  np.testing.assert_array_equal(
    builders.build_ascent(config, 3)(LOGITS, LABELS),
    fs.output_bias_forgetting(0.2, 0.5, "softmax")(LOGITS, LABELS),
  )


def delta_of(config: config_dict.ConfigDict, grads: Any) -> Any:
  """The gradient of 1/2 |w|^2 at the perturbed point, less w itself."""
  perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert perturb is not None
  params = jax.tree.map(lambda g: 0.5 + 0 * g, grads)
  got, _ = perturb.update(
    grads, perturb.init(params), params, grad_fn=lambda p: p
  )
  return jax.tree.map(jnp.subtract, got, params)


def test_perturbations():
  assert (
    builders.build_perturb(make_config("plain"), lambda c: 0.1, 0, 9) is None
  )
  g = GRADS["bias"]
  unit = np.sqrt(0.5)
  np.testing.assert_allclose(
    delta_of(make_config("sam"), g), 0.3 * unit, rtol=1e-5
  )
  # |w| = 0.5 everywhere: before the norm it cancels, after it halves.
  for magnitude, factor in [("before", 1.0), ("after", 0.5), ("both", 0.5)]:
    config = make_config("asam", perturbation__magnitude=magnitude)
    np.testing.assert_allclose(
      delta_of(config, g), 0.3 * unit * factor, rtol=1e-5
    )
  config = make_config("asam", perturbation__eta=0.5)
  np.testing.assert_allclose(delta_of(config, g), 0.3 * unit, rtol=1e-5)
  random = delta_of(make_config("random"), g)
  assert float(jnp.linalg.norm(random)) == pytest.approx(0.3, rel=1e-5)
  assert abs(float(random[0] - random[1])) > 1e-3


def test_steps_share_the_radius():
  """On 1/2 |w|^2 each of three steps goes a third of rho along w."""
  config = make_config("sam", perturbation__steps=3)
  perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert perturb is not None
  w, calls = jnp.array([0.6, 0.8]), []

  def ascent_fn(point: Any) -> Any:
    calls.append(point)
    return point

  got, _ = perturb.update(
    w, perturb.init(w), w, grad_fn=lambda p: p, ascent_fn=ascent_fn
  )
  np.testing.assert_allclose(got, 1.3 * w, rtol=1e-5)
  assert len(calls) == 2  # the first gradient was given


CHEAP = [
  ("every_k", {"perturbation__every_k": 3}, lambda p: fs.every_k(p, 3)),
  (
    "start and stop, of 9 steps",
    {"perturbation__start": 0.2, "perturbation__stop": 0.5},
    lambda p: fs.active_between(p, 2, 4),
  ),
  (
    "the last step at least",
    {"perturbation__start": 0.99},
    lambda p: fs.active_between(p, 8, 9),
  ),
  (
    "less than a step",
    {"perturbation__start": 0.2, "perturbation__stop": 0.21},
    lambda p: fs.active_between(p, 2, 3),
  ),
]


@pytest.mark.parametrize(
  ("changes", "wrap"), [c[1:] for c in CHEAP], ids=[c[0] for c in CHEAP]
)
def test_steps_that_do_not_ascend(changes: Any, wrap: Any):
  built = builders.build_perturb(
    make_config("sam", **changes), optax.constant_schedule(0.3), 0, 9
  )
  assert built is not None
  assert_same_steps(built, fs.perturbed_gradient(wrap(fs.sam(0.3))))


def test_friendly_weighted_and_look():
  config = make_config(
    "sam",
    perturbation__name="friendly_sam",
    perturbation__sigma=0.5,
    perturbation__decay=0.7,
    combine__name="weighted",
    combine__gamma=0.8,
  )
  built = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert built is not None
  by_hand = fs.friendly_sam(0.3, sigma=0.5, decay=0.7)
  assert_same_steps(built, fs.perturbed_gradient(by_hand, fs.weighted(0.8)))
  config = make_config("sam", look_sam__k=2, look_sam__alpha=0.4)
  built = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert built is not None
  assert_same_steps(built, fs.look_sam(fs.sam(0.3), 2, 0.4))


def assert_same_steps(built: Any, by_hand: Any) -> None:
  """Six updates along a path on which the gradient of a cubic turns."""
  grad_fn = jax.grad(lambda w: jnp.sum(w**3) + w[0] * w[1])
  results = []
  for transform in (built, by_hand):
    transform = optax.with_extra_args_support(transform)
    state, w, seen = transform.init(jnp.ones(2)), jnp.array([1.0, -0.5]), []
    for _ in range(6):
      grads, state = transform.update(
        grad_fn(w), state, w, grad_fn=grad_fn, ascent_fn=grad_fn
      )
      seen.append(grads)
      w = w - 0.1 * grads
    results.append(seen)
  np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_norm_layers_alone_move():
  config = make_config("sam", perturbation__layers="norm")
  grads = {"norm": {"scale": jnp.ones(1)}, "dense": {"kernel": jnp.ones(2)}}
  delta = delta_of(config, grads)
  np.testing.assert_allclose(delta["norm"]["scale"], [0.3], rtol=1e-5)
  np.testing.assert_array_equal(delta["dense"]["kernel"], [0.0, 0.0])
  with pytest.raises(ConfigError, match=r"perturbation\.layers='norm'"):
    delta_of(config, {"dense": {"kernel": jnp.ones(2)}})


def test_momentum_perturbs_along_the_optimizer():
  config = make_config("sam", perturbation__name="momentum")
  perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert perturb is not None
  optimizer, w = fs.sgdw(0.1), jnp.array([1.0, 1.0])
  _, opt_state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(w), w)
  got, _ = perturb.update(
    w, perturb.init(w), w, grad_fn=lambda p: p, opt_state=opt_state
  )
  np.testing.assert_allclose(got, w - 0.3 * jnp.array([0.6, 0.8]), rtol=1e-5)


def test_gsam_combines():
  grads = jnp.array([1.0, 0.0])
  config = make_config("gsam", combine__alpha=0.5)
  perturb = builders.build_perturb(config, optax.constant_schedule(0.3), 0, 9)
  assert perturb is not None
  params = jnp.zeros(2)
  perturbed = jnp.array([1.0, 1.0])
  got, _ = perturb.update(
    grads, perturb.init(params), params, grad_fn=lambda p: perturbed
  )
  # The part of (1, 0) orthogonal to (1, 1) is (1/2, -1/2).
  np.testing.assert_allclose(got, [0.75, 1.25], rtol=1e-5)


def test_model_options_that_are_none_are_the_models_own():
  config = make_config()
  assert builders.build_model(config, 10).hidden == (256, 256)
  config.model.hidden = (3,)
  assert builders.build_model(config, 7).hidden == (3,)
  assert builders.build_model(config, 7).num_classes == 7
  config.model = {"name": "mlp", "hidden": (3,)}  # a file's own group
  assert builders.build_model(config, 7).activation == "gelu"
