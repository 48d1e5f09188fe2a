"""The methods of `peer_traces.npz`, made of this project's names.

A row gives what comes first in the chain, or with it the keyword arguments of
`peer_traces.run`.
"""

import optax

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


def plain_sgd(case):
  return optax.sgd(case.base["lr"], case.base["momentum"])


def from_eigenvector(perturbation, eigenvector):
  """Starts the first power iteration from a given vector."""
  return optax.GradientTransformationExtraArgs(
    lambda params: perturbation.init(params)._replace(eigenvector=eigenvector),
    perturbation.update,
  )


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
  "lookbehind": lambda c: (
    fs.lookbehind(fs.sam(c["rho"]), c["k"]),
    {"optimizer": fs.slow_weights(plain_sgd(c), c["alpha"])},
  ),
  "stablesam": lambda c: gradient(fs.sam(c["rho"]), fs.stable_sam()),
  "gam": lambda c: fs.gam(
    fs.sam(c["grad_rho"]),
    c["grad_norm_rho"],
    c["grad_beta_1"],
    abs(c["grad_beta_2"]),
    c["grad_beta_3"],
    c["grad_gamma"],
  ),
  "eigensam": lambda c: gradient(
    from_eigenvector(
      fs.eigen_sam(
        c["rho"], c["alpha"], c["freq"], c["steps"], scaled_start=True
      ),
      c.tree(c.array("v_init_flat")),
    )
  ),
  "xsam": lambda c: gradient(
    fs.sam(c["rho"]),
    fs.xsam(
      c["rho_max"],
      c["alpha_max"],
      round(c["alpha_max"] / c["alpha_delta"]) + 1,
      c["update_every"],
    ),
  ),
  "layersam": lambda c: gradient(fs.layer_sam(c["pha"] * c["rho"], True, 20)),
  "looklayersam": lambda c: fs.look_layer_sam(
    c["rho"], c["k"], c["alpha"], by_weights=False
  ),
  "sam_sps": lambda c: (
    gradient(fs.sam(c["rho"]), fs.polyak_step(c["f_star"], c["gamma_b"])),
    {"optimizer": optax.sgd(1.0)},
  ),
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
  "zsharp": "not built yet",
  "unified_sam": "not built yet",
  "unified_sam_invt": "not built yet",
  "gcsam": "not built yet",
  "msam_adamw": "not built yet",
  "gsam_bv_f": "not built yet",
  "gsam_bv_f_adaptive": "not built yet",
  "gnp": "not built yet",
  "gnp_normalized": "not built yet",
  "bsam": "not built yet",
  "bsam_wd_m": "not built yet",
}
