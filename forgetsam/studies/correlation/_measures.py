"""The study's measures of a network: forgetting and sharpness."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from forgetsam import data, sharpness
from forgetsam._arrays import tree_norm
from forgetsam._typing import PyTree
from forgetsam.forgetting import (
  DeltaFn,
  OutputInformation,
  ProbeForgetting,
  effect_over_repeats,
  model_specific_forgetting,
  probe_forgetting,
  probe_indices,
)
from forgetsam.studies.correlation._functions import (
  Functions,
  PerturbedNetwork,
  loss_and_accuracy,
  offset_length,
)

Metrics = dict[str, float]

# Common to all: the same perturbation for every network.
COMMON_RHO, COMMON_M = 0.2, 32
COMMON: dict[str, tuple[str, str]] = {  # ascent signal, perturbation
  "obf_probe": ("output_bias_forgetting", "sam"),
  "sam_probe": ("loss", "sam"),
  "random_probe": ("loss", "random"),  # the control, of the same length
}
# Enough for a standard error well below the spread over networks.
REPEATS = {"obf_probe": 40, "sam_probe": 60, "random_probe": 4}
OWN_REPEATS = 40
SPECIFIC_M, SPECIFIC_REPEATS = 32, 40
SHARP_RHO, SHARP_ADAPTIVE_RHO, SHARP_M = 0.1, 1.0, 32
# A random direction has to be much longer to change the loss.
AVERAGE_RHO, AVERAGE_ADAPTIVE_RHO = 3.0, 100.0


class Measures:
  """Measures networks that were trained on one data set.

  Every network sees the same probes, micro-batches and random vectors, so that
  what differs is the network.

  Args:
    functions: those of the model.
    images: the data.
    config: any network's on these data.
    test: what to test on in place of the images' own test split.

  Raises:
    ValueError: there are too few examples of a class.
  """

  def __init__(
    self,
    functions: Functions,
    images: data.ImageData,
    config: config_dict.ConfigDict,
    test: data.Split | None = None,
  ):
    self._functions, self._key = functions, jax.random.key(2024)
    assert images.validation is not None
    splits = {
      "train": images.train,
      "held_out": images.validation,
      "test": images.test if test is None else test,
    }
    normal = {"mean": config.data.mean, "std": config.data.std}
    self._probes, self._examples = {}, {}
    for index, (name, split) in enumerate(splits.items()):
      (batch,) = data.eval_batches(split, batch_size=len(split), **normal)
      key = jax.random.fold_in(self._key, index)
      chosen = probe_indices(split.labels[:], config.forgetting.per_class, key)
      self._probes[name] = _examples(batch, chosen)
      count = len(split)
      if name != "test":  # micro-batches come from the others
        count = min(count, len(images.train))
      self._examples[name] = _examples(batch, np.arange(count))
    # A control must have wrong labels as often as what it controls for.
    held_out, labels = self._examples["held_out"]
    noisy = data.mislabel(
      images.validation,
      config.data.label_noise,
      num_classes=images.num_classes,
      seed=config.data.split_seed,
    )
    self._control = held_out, noisy.labels[: len(labels)]

    def loss_in_batches(size: int) -> sharpness.DatasetLoss:
      batches = list(data.eval_batches(images.train, batch_size=size, **normal))
      return sharpness.dataset_loss(
        functions.forward, functions.loss, {}, batches
      )

    self._whole = loss_in_batches(len(images.train))
    self._parts = loss_in_batches(SHARP_M)

  def common_forgetting(self, weights: PyTree, share: float = 1.0) -> Metrics:
    """Measures forgetting by each common perturbation, on each set.

    Args:
      weights: the network's.
      share: of the repeats.
    """
    metrics: Metrics = {}
    for name, (ascent, perturbation) in COMMON.items():
      delta_fn = self._functions.delta_fn(ascent, perturbation)
      network = self._functions.network(weights, COMMON_RHO)
      repeats = round(share * REPEATS[name])
      report = self._report(network, delta_fn, COMMON_M, repeats)
      forgotten = {k: v.forgotten for k, v in report.items()}
      metrics |= _informations(name, forgotten)
      # The same for every perturbation.
      before = {k: v.before for k, v in report.items()}
      metrics |= _informations("information", before)
    return metrics

  def own_forgetting(
    self, weights: PyTree, config: config_dict.ConfigDict
  ) -> Metrics:
    """Measures forgetting by the network's own perturbation; zero if none."""
    name = config.perturbation.name
    rho = 0.0 if name == "none" else config.perturbation.rho
    delta_fn = self._functions.delta_fn(
      config.ascent.name, "sam" if name == "none" else name
    )
    network = self._functions.network(weights, rho, config.ascent.gamma)
    m = config.micro_batch_size or config.batch_size
    length = effect_over_repeats(
      offset_length,
      delta_fn,
      network,
      self._examples["train"],
      m=m,
      repeats=4,
      key=self._key,
    )
    report = self._report(network, delta_fn, m, OWN_REPEATS)
    metrics = _informations("own", {k: v.forgotten for k, v in report.items()})
    return metrics | {"own_length": float(length.value)}

  def specific_forgetting(self, weights: PyTree, untrained: PyTree) -> Metrics:
    """Measures SAM's excess on the training micro-batches themselves."""
    functions = self._functions
    report = model_specific_forgetting(
      functions.logits_fn,
      functions.delta_fn("loss", "sam"),
      functions.network(weights, COMMON_RHO),
      functions.network(untrained, COMMON_RHO),
      self._examples["train"],
      self._control,
      m=SPECIFIC_M,
      repeats=SPECIFIC_REPEATS,
      key=self._key,
    )
    return _with_errors(
      {
        "specific_kl": report.trained.kl.excess,
        "specific_kl_untrained": report.untrained.kl.excess,
      }
    )

  def sharpness(self, weights: PyTree) -> Metrics:
    """Measures the sharpness of the training loss around the weights."""
    whole, key = self._whole, self._key
    product = functools.partial(whole.hessian_vector_product, weights)
    spectrum = sharpness.extreme_eigenvalues(
      product, weights, key, num_steps=12
    )
    average = functools.partial(
      sharpness.average_sharpness, whole, weights, key=key, num_samples=6
    )
    of_parts = functools.partial(sharpness.m_sharpness, self._parts, weights)
    worst = sharpness.worst_case_sharpness(
      whole, weights, SHARP_RHO, key, num_steps=5
    )
    return {
      "lambda_max": float(spectrum.largest[0]),
      "lambda_max_bound": float(spectrum.largest_error[0]),
      "worst_case": float(worst.increase),
    } | _with_errors(
      {
        "trace": sharpness.hutchinson_trace(
          product, weights, key, num_samples=6
        ),
        "average": average(AVERAGE_RHO),
        "average_adaptive": average(AVERAGE_ADAPTIVE_RHO, adaptive=True),
        "m_sharpness": of_parts(SHARP_RHO),
        "m_sharpness_adaptive": of_parts(SHARP_ADAPTIVE_RHO, adaptive=True),
      }
    )

  def fit(self, weights: PyTree) -> Metrics:
    """Measures loss, accuracy and the weights' norm."""
    metrics = {"weight_norm": float(tree_norm(weights))}
    network = self._functions.network(weights)
    for name in ("train", "test"):
      loss, accuracy = loss_and_accuracy(
        self._functions.logits_fn, network, *self._examples[name]
      )
      metrics[f"{name}_loss"] = float(loss)
      metrics[f"{name}_accuracy"] = float(accuracy)
    return metrics

  def _report(
    self, network: PerturbedNetwork, delta_fn: DeltaFn, m: int, repeats: int
  ) -> dict[str, ProbeForgetting]:
    return probe_forgetting(
      self._functions.logits_fn,
      delta_fn,
      network,
      self._examples["train"],
      self._probes,
      m=m,
      repeats=repeats,
      key=self._key,
    )


def _examples(batch: dict[str, Any], chosen: np.ndarray) -> tuple[Any, Any]:
  return jnp.asarray(batch["image"][chosen]), np.asarray(batch["label"][chosen])


def _informations(
  name: str, by_set: Mapping[str, OutputInformation]
) -> Metrics:
  """The bias-corrected entropy forms, as `NAME_GIVEN_SET`."""
  metrics: Metrics = {}
  for examples, informations in by_set.items():
    for given, information in informations._asdict().items():
      key = f"{name}_{given}_{examples}"
      metrics |= _with_errors({key: information.jackknife})
  return metrics


def _with_errors(estimates: dict[str, Any]) -> Metrics:
  """Values, and the standard errors as `NAME_se`."""
  estimates = jax.device_get(estimates)
  return {name: float(e.value) for name, e in estimates.items()} | {
    f"{name}_se": float(e.standard_error) for name, e in estimates.items()
  }
