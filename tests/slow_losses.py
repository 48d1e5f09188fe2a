"""Losses and signals in NumPy's float64, by weight: for tests to compare."""

import numpy as np


def weighted_rows(logits, labels, where=None):
  """One row a position: logits, targets, and weights that sum to 1."""
  lead, K = logits.shape[:-1], logits.shape[-1]
  z = np.asarray(logits, np.float64).reshape(-1, K)
  if labels.ndim == logits.ndim:
    y = np.array(labels, np.float64).reshape(-1, K)
  else:
    y = np.full(z.shape, np.nan)
    for i, label in enumerate(np.ravel(labels)):
      if 0 <= label < K:
        y[i] = np.arange(K) == label
  w = np.ones(lead) if where is None else np.asarray(where, np.float64)
  w = np.broadcast_to(w.reshape(w.shape + (1,) * (len(lead) - w.ndim)), lead)
  w = w.reshape(-1)
  y[w == 0] = 0
  return z, y, w / (w.sum() or 1)


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def softmax_loss(z, y, w):
  return w @ -(y * np.log(softmax(z))).sum(-1)


def sigmoid_loss(z, y, w):
  p = 1 / (1 + np.exp(-z))
  return w @ -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(-1)


def softmax_signal(z, y, w):
  return w[:, None] * (softmax(z) * y.sum(-1, keepdims=True) - y)


def obf_signal(z, y, w):
  p, u, rows = 1 / (1 + np.exp(-z)), 1 / z.shape[-1], []
  for p_i, y_i, w_i in zip(p, y, w, strict=True):
    p_y = max(p_i @ y_i, 1e-300)
    alpha = max(0.0, (1 - u / p_y) / (1 - u)) if w_i else 0
    rows.append(w_i * (u - alpha * p_i - (1 - alpha) * y_i))
  return np.array(rows)
