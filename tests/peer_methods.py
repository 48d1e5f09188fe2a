"""The methods of `peer_traces.npz`, made of this project's names.

A row gives what comes first in the chain, or with it the keyword arguments of
`peer_traces.run`.
"""

import forgetsam as fs


def weights_alone(params):
  """A mask of the arrays that are not called a bias."""
  return {name: "weight" in name for name in params}


def biases_alone(params):
  return {name: "weight" not in name for name in params}


def gradient(perturbation, combine=None):
  return fs.perturbed_gradient(perturbation, combine)


def made(row):
  """What comes first in the chain, and the arguments of `peer_traces.run`."""
  return row if type(row) is tuple else (row, {})


PEERS = {
  "sam_davda": lambda c: gradient(fs.sam(c["rho"])),
  "sam_samsung": lambda c: gradient(fs.sam(c["rho"])),
  "asam_davda": lambda c: gradient(fs.asam(c["rho"])),
  "msharp_sam": lambda c: (
    gradient(fs.sam(c["rho"])),
    {"micro_batches": c["msharpness"]},
  ),
  "wsam_coupled": lambda c: gradient(fs.sam(c["rho"]), fs.weighted(c["gamma"])),
  "gsam": lambda c: gradient(fs.sam(c["rho"]), fs.surrogate_gap(c["alpha"])),
  "gsam_bv_fp": lambda c: gradient(
    fs.sam(c["rho"]), fs.surrogate_gap(c["alpha"])
  ),
  "gsam_adaptive": lambda c: gradient(
    fs.asam(c["rho"]), fs.surrogate_gap(c["alpha"])
  ),
  "samon_sam": lambda c: gradient(fs.only(fs.sam(c["rho"]), fs.norm_layers)),
  "samon_asam_l2": lambda c: gradient(
    fs.only(fs.asam(c["rho"], c["eta"]), fs.norm_layers)
  ),
  "looksam": lambda c: fs.look_sam(fs.sam(c["rho"]), c["k"], c["alpha"]),
  "fsam": lambda c: gradient(fs.friendly_sam(c["rho"], c["sigma"], c["lmbda"])),
  "msam": lambda c: gradient(fs.momentum_ascent(c["rho"])),
}

# Cases that no row meets, and why.
NOT_MET: dict[str, str] = {
  "asam_samsung": "not built yet",
  "wsam_decoupled": "not built yet",
  "wsam_decoupled_adaptive": "not built yet",
  "vasso": "not built yet",
  "esam_official": "not built yet",
  "esam_elementwise": "not built yet",
  "fishersam": "not built yet",
  "sampa": "not built yet",
  "samon_asam_layer": "not built yet",
  "samon_asam_linf": "not built yet",
  "asam_layerwise": "not built yet",
  "asam_linf": "not built yet",
  "asam_layerwise_linf": "not built yet",
  "looksam_pertensor": "not built yet",
  "ssam_f": "not built yet",
  "ssam_d": "not built yet",
  "lesam": "not built yet",
  "lesam_adaptive": "not built yet",
  "crsam": "not built yet",
  "eigensam": "not built yet",
  "zsharp": "not built yet",
  "unified_sam": "not built yet",
  "unified_sam_invt": "not built yet",
  "lookbehind": "not built yet",
  "gcsam": "not built yet",
  "gam": "not built yet",
  "sam_sps": "not built yet",
  "stablesam": "not built yet",
  "xsam": "not built yet",
  "msam_adamw": "not built yet",
  "layersam": "not built yet",
  "looklayersam": "not built yet",
  "gsam_bv_f": "not built yet",
  "gsam_bv_f_adaptive": "not built yet",
  "gnp": "not built yet",
  "gnp_normalized": "not built yet",
  "bsam": "not built yet",
  "bsam_wd_m": "not built yet",
}
