"""The parts of the recipe `char_lm.py`: sentences to model, and a network."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

ALPHABET = "\n .abcdefghijklmnopqrstuvwxyz"  # the first: start, end, padding
LENGTH = 58  # of the longest sentence, with its end

# A symbol in braces stands for any of its phrases.
GRAMMAR = {
  "sentence": ["{noun} {verb} {noun}.", "{noun} {goes} {where} {noun}."],
  "noun": ["{the} {thing}", "{the} {quality} {thing}"],
  "the": ["the", "my", "this", "every"],
  "quality": ["old", "quick", "green", "quiet", "heavy", "clever", "tiny"],
  "thing": ["fox", "river", "teacher", "lamp", "cat", "garden", "judge"],
  "verb": ["sees", "likes", "follows", "paints", "forgets", "carries"],
  "goes": ["walks", "sleeps", "waits", "sings"],
  "where": ["near", "behind", "without", "under"],
}


def sentence(draws: Iterator[int]) -> str:
  """Replaces symbols, the first one first, until there is text alone."""
  text = "{sentence}"
  while "{" in text:
    before, _, rest = text.partition("{")
    symbol, _, after = rest.partition("}")
    phrases = GRAMMAR[symbol]
    text = before + phrases[next(draws) % len(phrases)] + after
  return text


def sentences(train: int = 128, held_out: int = 256) -> dict[str, Any]:
  """Random sentences: characters, those that follow, and their weights.

  Args:
    train: number of training sentences.
    held_out: number of validation and of test sentences, each.
  """
  sizes = {"train": train, "val": held_out, "test": held_out}
  arrays: dict[str, Any] = {"num_classes": len(ALPHABET)}
  for seed, (split, size) in enumerate(sizes.items()):
    draws = map(int, np.random.PCG64(seed).random_raw(16 * size))
    following = np.zeros((size, LENGTH), np.int32)
    weights = np.zeros((size, LENGTH), np.float32)
    for row in range(size):
      text = sentence(draws)
      following[row, : len(text)] = [ALPHABET.index(c) for c in text]
      weights[row, : len(text) + 1] = 1.0  # the end counts, too
    arrays |= {
      f"{split}_inputs": np.pad(following[:, :-1], [(0, 0), (1, 0)]),
      f"{split}_labels": following,
      f"{split}_weights": weights,
    }
  return arrays


class CharTransformer(nn.Module):
  """A causal transformer over characters.

  Attributes:
    num_classes: size of the alphabet.
    width: channels.
    depth: blocks.
    num_heads: attention heads.
    dropout: rate after attention and the hidden layer.
  """

  num_classes: int
  width: int = 64
  depth: int = 2
  num_heads: int = 4
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
    """Makes the logits of each next character, `[batch, length, classes]`."""

    def drop(y: jax.Array) -> jax.Array:
      return nn.Dropout(self.dropout, deterministic=not train)(y)

    x = nn.Embed(self.num_classes, self.width)(tokens)
    x += self.param(
      "pos_embed", nn.initializers.normal(0.02), (tokens.shape[1], self.width)
    )
    before = nn.make_causal_mask(tokens)
    for _ in range(self.depth):
      y = nn.LayerNorm()(x)
      x += drop(nn.MultiHeadDotProductAttention(self.num_heads)(y, mask=before))
      y = nn.Dense(4 * self.width)(nn.LayerNorm()(x))
      x += nn.Dense(self.width)(drop(nn.gelu(y)))
    return nn.Dense(self.num_classes)(nn.LayerNorm()(x))
