"""The tables of the measuring jobs, in words, and the keys that they show."""

from collections.abc import Iterable

from ml_collections import config_dict

from forgetsam.experiment.jobs._shown import Panel


def sharpness_panels(
  config: config_dict.ConfigDict, layers: Iterable[str]
) -> list[Panel]:
  """Curvature and balls of the whole network, and each layer's curvature."""
  options = config.sharpness
  curvature = ("Hessian", "Gauss-Newton")
  increases = {
    "average over random offsets": "average",
    "worst offset found": "worst_case",
    f"m-sharpness, {options.micro_batch_size} examples": "m_sharpness",
  }
  return [
    Panel(
      "training loss",
      (),
      {"at the weights": ("loss",), "norm of its gradient": ("gradient_norm",)},
    ),
    Panel("largest eigenvalue", curvature, {"network": _pair("largest/0")}),
    Panel(
      "trace",
      curvature,
      {"Hutchinson": _pair("trace"), "XTrace": _pair("xtrace")},
    ),
    Panel(
      f"increase of the loss at a distance of {options.rho:g}",
      ("all weights alike", "relative to each (adaptive)"),
      {label: (key, f"adaptive_{key}") for label, key in increases.items()},
    ),
    Panel(
      "largest eigenvalue, layer by layer",
      curvature,
      {name: _pair("largest/0", f"layer/{name}/") for name in layers},
    ),
  ]


def _pair(measure: str, prefix: str = "") -> tuple[str, str]:
  return f"{prefix}hessian/{measure}", f"{prefix}gauss_newton/{measure}"


def forgetting_panels(config: config_dict.ConfigDict) -> list[Panel]:
  """Information that offsets remove: of all examples, and of their own."""
  options = config.forgetting
  labels = {
    "own": f"the run's own, rho {config.perturbation.rho:g}",
    "sam": f"SAM, rho {options.sam_rho:g}",
    "obf": f"OBF, rho {options.obf_rho:g}",
    "random": f"random, rho {options.random_rho:g}",
  }
  splits = {"training": "train", "held-out": "held_out", "test": "test"}

  def forgotten(kind: str) -> dict[str, tuple[str, ...]]:
    return {
      label: tuple(
        f"{name}/probe/{split}/forgotten/{kind}/jackknife"
        for split in splits.values()
      )
      for name, label in labels.items()
    }

  return [
    Panel(
      "information in the outputs that is forgotten (nats)",
      tuple(splits),
      forgotten("unconditional"),
    ),
    Panel(
      "of which within classes (nats)", tuple(splits), forgotten("conditional")
    ),
    Panel(
      "of an offset's own examples, more than of held-out ones' (KL, nats)",
      ("this network", "untrained (control)"),
      {
        label: tuple(
          f"{name}/specific/{network}/kl/excess"
          for network in ("trained", "untrained")
        )
        for name, label in labels.items()
      },
    ),
  ]
