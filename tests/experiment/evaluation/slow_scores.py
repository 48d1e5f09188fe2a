"""The scores that evaluation must find, example by example, in float64."""

import math


def slow_scores(logits, labels, mask, classes=None, multi_label=False):
  """Scores of a split; `logits` and `labels` are those of all its examples."""
  loss = right1 = right5 = n = 0.0
  bins = [[0, 0.0, 0] for _ in range(15)]  # number, confidence, correct
  for z, label, counts in zip(logits, labels, mask, strict=True):
    if not counts:
      continue
    allowed = range(len(z)) if classes is None else classes
    target = {k: _weight(label, k, multi_label) for k in allowed}
    total = sum(target.values())
    total = total if multi_label or classes is not None else 1.0
    normaliser = math.log(sum(math.exp(float(z[k])) for k in allowed))
    best = sorted(allowed, key=lambda k: (-z[k], k))
    if multi_label:
      right = {k for k in allowed if target[k] > 0}
    else:
      right = {max(sorted(allowed), key=lambda k: target[k])}
    loss -= sum(
      w / total * (float(z[k]) - normaliser) for k, w in target.items()
    )
    n += 1
    right1 += best[0] in right
    right5 += bool(right & set(best[:5]))
    confidence = math.exp(float(z[best[0]]) - normaliser)
    for b in range(15):
      if b / 15 < confidence <= (b + 1) / 15:
        bins[b][0] += 1
        bins[b][1] += confidence
        bins[b][2] += best[0] in right
  ece = sum(
    size / n * abs(correct / size - confidence / size)
    for size, confidence, correct in bins
    if size
  )
  return {
    "loss": loss / n,
    "accuracy": right1 / n,
    "top5_accuracy": right5 / n,
    "ece": ece,
    "count": n,
  }, bins


def _weight(label, k, multi_label):
  if label.ndim == 0:
    return float(label == k)
  return float(label[k] > 0) if multi_label else float(label[k])
