"""The metrics of language models and regressions, and a loss to score by."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import forgetsam as fs
from forgetsam.training import TokenMetrics, regression_metrics

LOGITS = jnp.array([[[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])


def identity(params, model_state, inputs, *, train, key):
  return inputs, model_state


def scored(outputs, labels, mask=None, **options):
  batch = {"image": outputs, "label": labels}
  batch |= {} if mask is None else {"mask": mask}
  sums = fs.make_eval_step(identity, **options)({}, {}, batch)
  count = sums.pop("count")
  return {name: float(x / count) for name, x in sums.items()}, float(count)


def test_tokens_are_scored_by_cross_entropy_and_padding_is_none():
  metrics = TokenMetrics()
  labels, mask = jnp.array([[0, -1]]), jnp.array([[1.0, 0.0]])
  found, count = scored(LOGITS, labels, mask, metrics=metrics)
  nats = np.log(1 + np.exp(-2) + np.exp(-3))
  assert count == 1
  assert found == pytest.approx({"nats": nats, "token_accuracy": 1.0})
  assert metrics.finish({"loss": 9.0, **found}) == pytest.approx(
    {"loss": 9.0, "token_accuracy": 1.0, "perplexity": np.exp(nats)}
  )
  found, _ = scored(LOGITS, labels, metrics=metrics)
  assert np.isnan(found["nats"])


def test_errors_are_those_of_each_example_by_weight():
  outputs = jnp.array([[1.0, 2.0], [4.0, 0.0], [9.0, 9.0]])
  labels, mask = jnp.zeros((3, 2)), jnp.array([1.0, 3.0, 0.0])
  found, count = scored(
    outputs,
    labels,
    mask,
    loss=optax.squared_error,
    metrics=regression_metrics,
  )
  mse = (2.5 + 3 * 8.0) / 4
  assert count == 4
  assert found == pytest.approx(
    {"loss": mse, "mse": mse, "mae": (1.5 + 3 * 2.0) / 4}
  )


def test_what_does_not_fit_is_refused():
  ones = jnp.ones((2, 1))
  with pytest.raises(ValueError, match=r"labels\[:, None\]"):
    regression_metrics(ones, jnp.ones(2))
  with pytest.raises(ValueError, match="leave them out"):
    fs.make_eval_step(identity, loss=optax.squared_error, multi_label=True)
  with pytest.raises(ValueError, match="metrics returns 'loss'"):
    scored(ones, ones, metrics=lambda outputs, labels: {"loss": outputs})
