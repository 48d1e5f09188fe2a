"""The configuration keys of the jobs that measure networks."""

from forgetsam.experiment.config._rules import (
  COUNT,
  FLAG,
  NOT_NEGATIVE,
  POSITIVE,
  Key,
  Rule,
  choice,
  integer,
  text,
  words,
)


def _job(**rows: Key) -> dict[str, Key]:
  return {
    name: row._replace(compiled=False, binding=False)
    for name, row in rows.items()
  }


_WHICH = choice("last", "best", "all")
_NONE_OR_TWO = Rule(
  int, "0 for none, or an integer, at least 2", lambda v: v == 0 or v >= 2
)
_LISTED = words("names among sam, obf and random", "sam", "obf", "random")

MEASURING: dict[str, dict[str, Key]] = {
  "sharpness": _job(
    checkpoint=Key("last", _WHICH, "Checkpoints to measure"),
    examples=Key(8192, COUNT, "Training examples in the loss"),
    top=Key(1, COUNT, "Largest eigenvalues to report"),
    lanczos_steps=Key(30, integer(2), "Lanczos iterations"),
    trace_samples=Key(50, integer(2), "Random vectors for a trace"),
    density_samples=Key(
      5, _NONE_OR_TWO, "Random vectors for the spectral density"
    ),
    rho=Key(0.05, POSITIVE, "Radius of average and worst-case sharpness"),
    micro_batch_size=Key(128, COUNT, "Micro-batch of m-sharpness (m)"),
    layers=Key(False, FLAG, "Measure each layer's curvature, too"),
    surface_points=Key(
      0, _NONE_OR_TWO, "Loss surface's points per axis; 0: none"
    ),
  ),
  "forgetting": _job(
    checkpoint=Key("last", _WHICH, "Checkpoints to measure"),
    examples=Key(2000, integer(2), "Examples of each split"),
    per_class=Key(30, integer(2), "Examples of each class in a probe"),
    micro_batch_size=Key(64, COUNT, "Examples that share a delta"),
    repeats=Key(20, integer(2), "Micro-batches, each with its delta"),
    sam_rho=Key(0.1, NOT_NEGATIVE, "Radius of SAM's delta"),
    obf_rho=Key(0.4, NOT_NEGATIVE, "Radius of OBF's delta"),
    random_rho=Key(1.0, NOT_NEGATIVE, "Radius of a random delta"),
    layer=Key(
      None,
      text("the name of a module of the model"),
      "Module whose representation is measured, too",
    ),
    noise_std=Key(0.5, POSITIVE, "Noise on that, relative to its scale"),
  ),
  "probe": _job(
    perturbations=Key("", _LISTED, "Deltas whose forgetting training logs"),
    every_steps=Key(200, COUNT, "Steps between probes"),
  ),
}
