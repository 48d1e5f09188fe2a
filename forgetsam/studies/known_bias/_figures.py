"""The pictures: curves over rho, and one step against training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetsam.experiment.figures import add_grid, add_legend, new_figure
from forgetsam.studies.known_bias._tables import (
  Groups,
  Key,
  cell,
  collapsed,
  key_of,
  shown_effects,
)

# Dark and light, filled and open: the pictures read the same in grey.
M_STYLES: Mapping[int, Mapping[str, Any]] = {
  128: {"color": "#0b4f8a", "marker": "o", "linestyle": "-"},
  32: {"color": "#c1440e", "marker": "s", "linestyle": "--", "mfc": "white"},
}
_NAMES = {
  "sam": "SAM",
  "obf_gamma0": r"OBF, $\gamma = 0$",
  "obf_gamma1": r"OBF, $\gamma = 1$",
  "random": "random direction",
}
_ROWS = {
  "validation/accuracy": "accuracy,\nbiased validation",
  "test_random/accuracy": "accuracy,\npatch random",
  "test_conflict/accuracy": "accuracy,\npatch conflicts",
  "influence/ratio": "patch / content\ninfluence (no unit)",
}


def draw_curves(
  path: Path, groups: Groups, plain: Key, chosen: Sequence[Key]
) -> None:
  """Every metric over rho, a column for each method; writes a PNG.

  Settings whose networks collapse are named and not drawn.

  Args:
    path: the file.
    groups: the runs of the curve, by condition and seed.
    plain: the key of plain training's runs.
    chosen: the conditions that the protocol chose, marked by a ring.
  """
  figure = new_figure(10, 8.2, dpi=80)
  axes = figure.subplots(len(_ROWS), len(_NAMES), sharey="row", sharex="col")
  for row, (metric, label) in zip(axes, _ROWS.items(), strict=True):
    row[0].set_ylabel(label)
    for axis, method in zip(row, _NAMES, strict=True):
      _draw_panel(axis, groups, plain, chosen, method, metric)
  for axis, name in zip(axes[0], _NAMES.values(), strict=True):
    axis.set_title(name)
  for axis in axes[-1]:
    axis.set_xlabel(r"radius $\rho$ (norm of the offset)")
  add_legend(figure, axes[0, 0], ncols=4)
  figure.savefig(path)


def _draw_panel(
  axis: Any,
  groups: Groups,
  plain: Key,
  chosen: Sequence[Key],
  method: str,
  metric: str,
) -> None:
  base = cell(groups[plain], metric, None).mean
  if base is not None and base.standard_error is not None:
    axis.axhline(base.mean, color="black", linestyle=":", label="plain ± s.e.")
    low, high = base.mean - base.standard_error, base.mean + base.standard_error
    axis.axhspan(low, high, color="#b8b8b8", alpha=0.5, linewidth=0)
  for m, style in M_STYLES.items():
    finite = []
    for key in sorted(k for k in groups if k[:2] == (method, m)):
      mean = cell(groups[key], metric, None).mean
      if mean is not None and not collapsed(groups[key]):
        finite.append((key, mean))
      elif metric == "test_random/accuracy":
        look = {"ha": "right", "fontsize": 8, "color": style["color"]}
        place = {"xycoords": ("data", "axes fraction")}
        axis.annotate(f"m = {m}\ncollapses", (key[3], 0.04), **place, **look)
    axis.errorbar(
      [key[3] for key, _ in finite],
      [mean.mean for _, mean in finite],
      [mean.standard_error or 0.0 for _, mean in finite],
      label=f"m = {m}, mean ± s.e.",
      **{"capsize": 3, "markersize": 5, **style},
    )
    for key, mean in finite:
      if key in chosen:
        ring = {"markersize": 13, "mfc": "none", "mec": "black"}
        label = "chosen" if m == 128 else None
        axis.plot(key[3], mean.mean, "o", linestyle="none", label=label, **ring)
  axis.set_xscale("log", base=2)
  ticks = sorted({k[3] for k in groups if k[0] == method})
  axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
  axis.minorticks_off()
  add_grid(axis)


METHOD_STYLES: Mapping[str, Mapping[str, Any]] = {
  "plain": {"color": "black", "marker": "D"},
  "sam": {"color": "#0b4f8a", "marker": "o"},
  "obf_gamma0": {"color": "#c1440e", "marker": "s"},
  "obf_gamma1": {"color": "#c1440e", "marker": "s", "mfc": "white"},
  "random": {"color": "#777777", "marker": "^"},
}


def draw_steps(
  path: Path, effects: Sequence[Mapping[str, Any]], groups: Groups, m: int
) -> None:
  """One-step effects against the ratio after training; writes a PNG.

  Args:
    path: the file.
    effects: as `average_effects` gives.
    groups: the runs of the curve.
    m: the micro-batch size to show, beside plain training.
  """
  epochs = sorted({effect["epoch"] for effect in effects})
  figure = new_figure(10, 5.4, dpi=80)
  axes = figure.subplots(2, len(epochs), sharey="row", squeeze=False)
  labels = {
    "forgotten_balance": (
      "forgotten by one perturbation:\nchange of log(patch/content)"
    ),
    "learned_balance": (
      "learned by one step:\nd log(patch/content)\nper unit of learning rate"
    ),
  }
  for row, (name, label) in zip(axes, labels.items(), strict=True):
    row[0].set_ylabel(label)
    for axis, epoch in zip(row, epochs, strict=True):
      for effect in shown_effects(effects, epoch, m):
        _draw_effect(axis, effect, name, groups)
      axis.axhline(0, color="black", linewidth=0.8)
      add_grid(axis)
  for axis, epoch in zip(axes[0], epochs, strict=True):
    axis.set_title(f"plain network, epoch {epoch}")
  for axis in axes[1]:
    axis.set_xlabel("patch/content influence\nafter training with it")
  add_legend(figure, axes[0, 0], ncols=5)
  figure.savefig(path)


def _draw_effect(
  axis: Any, effect: Mapping[str, Any], name: str, groups: Groups
) -> None:
  key = key_of(effect)
  trained = cell(groups[key], "influence/ratio", None).mean
  if trained is None or collapsed(groups[key]):
    return
  method = effect["method"]
  look = {"capsize": 2, "markersize": 5, "linestyle": "none"}
  axis.errorbar(
    trained.mean,
    effect[name],
    effect[f"{name}_se"],
    trained.standard_error,
    label=_NAMES.get(method, method),
    **look,
    **METHOD_STYLES[method],
  )
