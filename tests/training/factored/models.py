"""Small models, each with a layer that another kind of factor is of."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FACTORED = "factored"
READ_BY = "formed: {} reads it"


class Model(NamedTuple):
  apply: Callable[[Any, Any], Any]
  shapes: dict[str, tuple[int, ...]]
  how: dict[str, str]  # how each parameter is taken
  inputs: tuple[int, ...] = (12,)
  outputs: tuple[int, ...] = (5,)
  tokens: int = 0

  def params(self) -> dict[str, jax.Array]:
    rng = np.random.RandomState(0)
    return {
      name: jnp.asarray(rng.randn(*shape) / np.sqrt(12))
      for name, shape in self.shapes.items()
    }

  def batch(self, size: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.RandomState(1)
    x = rng.randn(size, *self.inputs)
    if self.tokens:
      x = rng.randint(0, self.tokens, (size, *self.inputs))
      x[1::2] = x[::2]  # twice in a micro-batch
    return jnp.asarray(x), jnp.asarray(rng.randn(size, *self.outputs))


def _mlp(p, x):
  return jnp.tanh(x @ p["a"] + p["b"]) @ p["c"]


def _vectors(p, x):
  """As Equinox applies layers: to one example after another."""

  def one(v):
    return p["c"] @ jnp.tanh(p["a"] @ v + p["b"])

  return jax.vmap(one)(x)


def _transposed(p, x):
  return jnp.tanh(x @ p["a"].T) @ p["c"].reshape(16, 5)


def _general(p, x):
  """DenseGeneral: to heads, and from heads."""
  h = jnp.einsum("bd,dhk->bhk", x, p["a"])
  return jnp.einsum("bhk,hko->bo", jnp.tanh(h), p["c"])


def _tied(p, x):
  """Embeddings that are the output layer's weights, too."""
  h = jnp.tanh(p["e"][x] @ p["a"])
  return h @ p["e"].T


def _clipped(p, x):
  return jnp.tanh(p["e"].T.at[x].get(mode="clip") @ p["a"])


def _shared(p, x):
  h = jnp.tanh(x @ p["a"])
  return jnp.tanh(h @ p["a"]) @ p["a"].T @ p["c"]


def _across(p, x):
  """Uses whose sums cannot be mixed: over other axes each."""
  h = jnp.einsum("bd,dhk->bhk", x, p["a"])
  pairs = x[:, :, None] * h.sum(2)[:, None, :]
  return jnp.tanh(jnp.einsum("bdh,dhk->bk", pairs, p["a"])) @ p["c"]


def _stack(p, x, wrap=lambda f: f):
  @wrap
  def layer(h, weights):
    return h + jnp.tanh(h @ weights["a"] + weights["b"]), None

  layers = {"a": p["a"], "b": p["b"]}
  return jax.lax.scan(layer, x, layers)[0] @ p["c"]


def _remat(p, x):
  block = jax.checkpoint(lambda a, b, h: jnp.tanh(h @ a + b))
  return block(p["a"], p["b"], x) @ p["c"]


def _returned(wrap):
  """A block returns its weight, and it is used again."""

  def apply(p, x):
    block = wrap(lambda a, h: (jnp.tanh(h @ a), a))
    h, a = block(p["a"], x)
    return (h + jnp.sin(h @ a)) @ p["c"]

  return apply


def _recurrent(p, x):
  def step(h, _):
    return jnp.tanh(h @ p["a"] + x), None

  return jax.lax.scan(step, x, length=3)[0] @ p["c"]


def _normalised(p, x):
  direction = p["a"] / jnp.linalg.norm(p["a"], axis=0)
  return jnp.tanh(x @ direction) @ p["c"]


def _conv(p, x):
  h = jax.lax.conv_general_dilated(
    x,
    p["a"],
    (2, 1),
    [(1, 0), (1, 2)],
    rhs_dilation=(1, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return jnp.tanh(h).mean((1, 2)) @ p["c"]


def _wide_conv(p, x):
  """Few positions, many channels: its factors are small."""
  h = jax.lax.conv_general_dilated(
    x, p["a"], (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW")
  )
  return jnp.tanh(h).mean((2, 3)) @ p["c"]


def _custom(p, x):
  @jax.custom_jvp
  def product(h, a):
    return h @ a

  product.defjvp(
    lambda xs, ts: (product(*xs), ts[0] @ xs[1] + 2 * (xs[0] @ ts[1]))
  )
  return product(x, p["a"]) @ p["c"]


def _attention(p, x):
  q, k, v = (jnp.einsum("btd,dhk->bthk", x, p[n]) for n in "qkv")
  weights = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
  mixed = jnp.einsum("bhts,bshk->bthk", weights, v)
  return jnp.einsum("bthk,hko->bto", mixed, p["c"]).mean(1)


_A = {"a": (12, 16), "c": (16, 5)}
_BOTH = {"a": FACTORED, "c": FACTORED}
_SECOND = {"a": "formed: a loop uses it again and again", "c": FACTORED}

MODELS = {
  "mlp": Model(
    _mlp,
    {**_A, "b": (16,)},
    {**_BOTH, "b": "formed: add reads it"},
  ),
  "vectors": Model(
    _vectors,
    {"a": (16, 12), "b": (16,), "c": (5, 16)},
    {**_BOTH, "b": "formed: add reads it"},
  ),
  "transposed": Model(_transposed, {"a": (16, 12), "c": (4, 4, 5)}, _BOTH),
  "heads": Model(_general, {"a": (12, 2, 8), "c": (2, 8, 5)}, _BOTH),
  "tied": Model(
    _tied,
    {"e": (40, 12), "a": (12, 12)},
    {"e": FACTORED, "a": FACTORED},
    (1,),
    (1, 40),
    tokens=40,
  ),
  "clipped": Model(
    _clipped,
    {"e": (12, 20), "a": (12, 12)},
    {"e": FACTORED, "a": FACTORED},
    (1,),
    (1, 12),
    tokens=40,  # some beyond the last row
  ),
  "shared": Model(_shared, {"a": (24, 24), "c": (24, 5)}, _BOTH, inputs=(24,)),
  "across": Model(
    _across,
    {"a": (12, 2, 8), "c": (8, 5)},
    {
      "a": "formed: its uses sum over different axes",
      "c": FACTORED,
    },
  ),
  "stack": Model(
    _stack,
    {"a": (3, 12, 12), "b": (3, 12), "c": (12, 5)},
    {**_BOTH, "b": "formed: add reads it"},
  ),
  "rematerialised stack": Model(
    functools.partial(_stack, wrap=jax.checkpoint),
    {"a": (3, 12, 12), "b": (3, 12), "c": (12, 5)},
    {**_BOTH, "b": "formed: add reads it"},
  ),
  "rematerialised": Model(
    _remat,
    {**_A, "b": (16,)},
    {**_BOTH, "b": "formed: add reads it"},
  ),
  "returned by jit": Model(
    _returned(jax.jit), {"a": (24, 24), "c": (24, 5)}, _BOTH, inputs=(24,)
  ),
  "returned by checkpoint": Model(
    _returned(jax.checkpoint),
    {"a": (24, 24), "c": (24, 5)},
    {"a": "formed: a block returns it", "c": FACTORED},
    inputs=(24,),
  ),
  "recurrent": Model(_recurrent, {"a": (12, 12), "c": (12, 5)}, _SECOND),
  "normalised": Model(
    _normalised,
    _A,
    {"a": "formed: mul reads it", "c": FACTORED},
  ),
  "convolution": Model(
    _conv,
    {"a": (3, 2, 4, 8), "c": (8, 5)},
    {"a": "formed: smaller than its factors", "c": FACTORED},
    (5, 6, 4),
  ),
  "wide convolution": Model(
    _wide_conv,
    {"a": (16, 8, 3, 3), "c": (16, 5)},
    _BOTH,
    (8, 4, 3),
  ),
  "custom derivative": Model(
    _custom, _A, {"a": "formed: custom_jvp_call reads it", "c": FACTORED}
  ),
  "attention": Model(
    _attention,
    {"q": (24, 2, 12), "k": (24, 2, 12), "v": (24, 2, 12), "c": (2, 12, 5)},
    {
      **dict.fromkeys("qkv", FACTORED),
      "c": "formed: smaller than its factors",
    },
    (2, 24),
  ),
}
