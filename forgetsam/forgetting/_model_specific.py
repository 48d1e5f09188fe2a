"""Forgetting of the very examples that a perturbation came from."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from forgetsam._arrays import add_delta
from forgetsam._checks import check_count
from forgetsam._estimate import Estimate
from forgetsam._losses import softmax_cross_entropy
from forgetsam._objectives import mean_loss
from forgetsam._typing import Loss, PyTree
from forgetsam.forgetting._effect import draw, over_repeats, stack
from forgetsam.forgetting._offsets import DeltaFn, Examples, LogitsFn


class OriginEffect(NamedTuple):
  """A perturbation's effect on its own examples and on fresh ones.

  Attributes:
    own: on the examples that the perturbation came from.
    fresh: on as many others of the same set.
    specific: own minus fresh, paired.
  """

  own: Estimate
  fresh: Estimate
  specific: Estimate


class SpecificForgetting(NamedTuple):
  """The effect of perturbations from training and from held-out examples.

  Attributes:
    train: of perturbations computed from training examples.
    held_out: of those from held-out examples: the control.
    excess: `train.specific - held_out.specific`, the estimate.
  """

  train: OriginEffect
  held_out: OriginEffect
  excess: Estimate


class NetworkForgetting(NamedTuple):
  """By KL of the clean to the perturbed outputs, and by the loss's rise."""

  kl: SpecificForgetting
  loss: SpecificForgetting


class ModelSpecificForgetting(NamedTuple):
  """Of the network in question, and of weights that have seen no example."""

  trained: NetworkForgetting
  untrained: NetworkForgetting


def model_specific_forgetting(
  logits_fn: LogitsFn,
  delta_fn: DeltaFn,
  params: PyTree,
  untrained_params: PyTree,
  train: Examples,
  held_out: Examples,
  *,
  m: int,
  repeats: int,
  key: jax.Array,
  loss: Loss | None = None,
) -> ModelSpecificForgetting:
  r"""Compares forgetting of a perturbation's own and of other examples.

  For a micro-batch B of m examples of a set, other examples F of the same set,
  and :math:`\delta = \delta(w; B)`,

  .. math:: s = \overline{D}_B - \overline{D}_F, \qquad
     D(x) = \mathrm{KL}\bigl(p_w(x) \Vert p_{w + \delta}(x)\bigr)
     \ \text{ or }\ L_{w + \delta}(x) - L_w(x)

  and the estimate is the excess :math:`s_{\text{train}} -
  s_{\text{held out}}`, averaged over repeats. It asks whether the offset undoes
  more of what the network knows of B where the network was trained on B.

  *Controls.* To first order, the loss form of SAM is

  .. math:: s \approx \rho \Bigl(\lVert g_B \rVert -
     \frac{\langle g_B, g_F \rangle}{\lVert g_B \rVert}\Bigr),

  which is positive for *any* network, grows as m shrinks, and is as large
  before training: an offset is aimed at the examples that made it. That part is
  the same for held-out examples and cancels in the excess. The untrained
  network tells whether the two sets are alike: there the excess must be zero
  within its error, unless the sets differ by more than being trained on
  (flipped labels, augmentation). F comes from B's own set, so that an offset
  that does not depend on B, such as a random one, has s = 0 in expectation.

  *Bias*: none, as a mean over micro-batches drawn from these sets; what it
  says of model-specific *information* is a reading, not a bound. *Standard
  errors* are over repeats (B and F are drawn without replacement, the same for
  both networks), with the networks and sets given: their spreads come on top,
  that over sets where repeats times m exceeds the size of a set.

  Args:
    logits_fn: `(params, images) -> logits [batch, classes]`, in evaluation
      mode. Keep it, `delta_fn` and `loss` from call to call: others compile.
    delta_fn: as in `effect_over_repeats`.
    params: the trained network's weights.
    untrained_params: the same network's weights before training.
    train: images and labels that the network was trained on.
    held_out: images and labels from the same distribution, never trained on.
    m: examples in a micro-batch; each set needs 2m.
    repeats: number of micro-batches from each set.
    key: of the draws.
    loss: as in `make_train_step`, for the loss form; `None` is softmax
      cross-entropy.

  Returns:
    `ModelSpecificForgetting(trained, untrained)`.

  Raises:
    ValueError: a set has fewer than 2m examples, or repeats is below 1.

  Example:
    >>> import forgetsam as fs
    >>> from forgetsam.forgetting import offset_fn
    >>> def logits_fn(w, x):
    ...   return x @ w
    >>> x, y = jnp.eye(8), jnp.arange(8) % 2
    >>> sam = offset_fn(
    ...   logits_fn, fs.loss_ascent(fs.softmax_cross_entropy()), fs.sam(1.0)
    ... )
    >>> report = model_specific_forgetting(
    ...   logits_fn, sam, jnp.eye(2)[y], jnp.zeros((8, 2)), (x, y), (x, y),
    ...   m=2, repeats=3, key=jax.random.key(0),
    ... )
    >>> bool(report.untrained.loss.train.specific.value > 0.1)  # and yet:
    True
    >>> round(abs(float(report.untrained.loss.excess.value)), 4)
    0.0
  """
  check_count("repeats", repeats)
  for name, (_, labels) in (("train", train), ("held_out", held_out)):
    if not 2 <= 2 * m <= len(labels):
      raise ValueError(
        f"m={m} must be at least 1, and {name} have at least 2m examples (m of "
        f"the perturbation, m fresh ones); it has {len(labels)}"
      )
  loss = _SOFTMAX_CROSS_ENTROPY if loss is None else loss

  def report(weights: PyTree) -> NetworkForgetting:
    by_origin = []
    for origin, examples in enumerate((train, held_out)):
      one_draw = functools.partial(
        _own_and_fresh, logits_fn, delta_fn, loss, m, weights, examples,
        jax.random.fold_in(key, origin),
      )  # fmt: skip
      first = origin * repeats
      by_origin.append(stack([one_draw(first + r) for r in range(repeats)]))
    return NetworkForgetting(*map(_compare, *by_origin))

  return ModelSpecificForgetting(report(params), report(untrained_params))


_SOFTMAX_CROSS_ENTROPY = softmax_cross_entropy()

OwnAndFresh = tuple[jax.Array, jax.Array]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _own_and_fresh(
  logits_fn: LogitsFn,
  delta_fn: DeltaFn,
  loss: Loss,
  m: int,
  params: PyTree,
  examples: Examples,
  key: jax.Array,
  index: int | jax.Array,
) -> tuple[OwnAndFresh, OwnAndFresh]:
  """One repeat: the KL and the loss's rise, on own and on fresh examples."""
  images, labels = draw(examples, 2 * m, jax.random.fold_in(key, index))
  delta = delta_fn(params, images[:m], labels[:m], micro_batch=index)
  before = logits_fn(params, images).astype(jnp.float32)
  after = logits_fn(add_delta(params, delta), images).astype(jnp.float32)
  log_p, log_q = jax.nn.log_softmax(before), jax.nn.log_softmax(after)
  kl = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)

  def rise(part: slice) -> jax.Array:
    value = lambda z: mean_loss(loss, z[part], labels[part])  # noqa: E731
    return value(after) - value(before)

  own, fresh = slice(0, m), slice(m, None)
  return (jnp.mean(kl[own]), jnp.mean(kl[fresh])), (rise(own), rise(fresh))


def _compare(train: OwnAndFresh, held_out: OwnAndFresh) -> SpecificForgetting:
  first, second = _effect(*train), _effect(*held_out)
  # The two origins' draws are independent: their variances add up.
  excess = Estimate(
    first.specific.value - second.specific.value,
    jnp.hypot(first.specific.standard_error, second.specific.standard_error),
  )
  return SpecificForgetting(first, second, excess)


def _effect(own: jax.Array, fresh: jax.Array) -> OriginEffect:
  return OriginEffect(*(over_repeats(x) for x in (own, fresh, own - fresh)))
