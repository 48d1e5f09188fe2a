"""The methods of `peer_traces.npz`, made of this project's names.

A row gives what comes first in the chain, or with it the keyword arguments of
`peer_traces.run`.
"""

import jax
import jax.numpy as jnp
import optax
from peer_traces import losses, record

import forgetsam as fs


def weights_alone(params):
  """A mask of the arrays that are not called a bias."""
  return {name: "weight" in name for name in params}


def recorded(masks):
  """A mask for `only` that was drawn elsewhere: [step, ...] of each array."""
  masks = jax.tree.map(lambda m: jnp.asarray(m) > 0, masks)

  def update(updates, count, params=None, **extra):
    return jax.tree.map(lambda m: m[count], masks), count + 1

  return optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros((), jnp.int32), update
  )


def decay_after(factor):
  """Decay of the weights that an optimizer's step has reached."""
  return optax.stateless(
    lambda updates, params: jax.tree.map(
      lambda u, w: u - factor * (w + u), updates, params
    )
  )


def adam_with_decay_after(c):
  return optax.chain(
    record(),
    optax.adam(c["lr"], c["beta1"], c["beta2"], c["eps"]),
    decay_after(c["lr"] * c["weight_decay"]),
  )


def decoupled(c, perturbation):
  optimizer = fs.decoupled_wsam(c.sgd(), c.base["lr"], c["gamma"])
  return gradient(perturbation), {"optimizer": optimizer}


def samsung(c, **options):
  """Biases have no magnitude there, unless asked for."""
  mask = None if c.hyper.get("normalize_bias") else weights_alone
  return fs.asam(c["rho"], c["eta"], mask=mask, **options)


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


def loss_equated(c):
  return gradient(fs.le_sam(c["rho_max"], c["sigma"], c["adaptive"]))


def unified(c):
  schedules = {
    "1/t": lambda count: 1 / (count + 1.0),
    "1-1/t": lambda count: 1 - 1 / (count + 1.0),
  }
  lam = schedules.get(c["lambd"], c["lambd"])
  return gradient(fs.unified_sam(c["rho"], lam))


def bayesian(c):
  """With the file's noise in place of its own."""
  noise = c.tree(c.array("noise_flat"))
  read = optax.GradientTransformationExtraArgs(
    lambda params: jnp.zeros((), jnp.int32),
    lambda updates, step, params=None, *, micro_batch, **extra: (
      {name: x[step, micro_batch] for name, x in noise.items()},
      step + 1,
    ),
  )
  transform = fs.bsam(
    c["rho"],
    0,
    c["Ndata"],
    c["beta1"],
    c["beta2"],
    c["wdecay"],
    c["damping"],
    c["s_init"],
    noise=read,
  )
  return transform, {
    "optimizer": optax.sgd(c["lr"]),
    "micro_batches": c["msharpness"],
  }


def sparse_by_fisher(c):
  """Of the file's samples; the first gradient is added to the last step's."""
  x, y = (c.golden[f"fisher/{name}"] for name in "xy")

  def fisher(params, *, opt_state, **extra):
    gradients = jax.jacrev(losses)(params, x, y)
    last = optax.tree.get(opt_state, "recorded")
    return jax.tree.map(
      lambda g, d: jnp.sum(g.at[0].add(d) ** 2, axis=0), gradients, last
    )

  every = c["batches_per_epoch"] * c["update_freq"]
  mask = fs.fisher_mask(c["sparsity"], every, start=1, fisher=fisher)
  return gradient(fs.sparse_sam(c["rho"], mask, eps=1e-7))


def sparse_by_turnover(c):
  """From the file's first mask, which is random."""
  per_epoch, begin = c["batches_per_epoch"], c["T_start"]

  def rate(count):
    part = (count // per_epoch - begin) / float(c["T_end"] - begin)
    return c["drop_rate"] * (1 + jnp.cos(jnp.pi * part)) / 2

  mask = fs.dynamic_mask(
    c["sparsity"],
    per_epoch * c["update_freq"],
    rate,
    c["drop_strategy"],
    c["growth_strategy"],
  )
  first = c.tree(c.array("mask_flat")[0])
  begun = optax.GradientTransformationExtraArgs(
    lambda params: mask.init(params)._replace(mask=first), mask.update
  )
  return gradient(fs.sparse_sam(c["rho"], begun, eps=1e-7))


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
  "samon_asam_l2": lambda c: gradient(fs.only(samsung(c), fs.norm_layers)),
  "gsam_bv_f": lambda c: gradient(
    fs.sam(c["rho"]), fs.surrogate_gap(c["alpha"], minimize="clean")
  ),
  "gsam_bv_f_adaptive": lambda c: gradient(
    fs.asam(c["rho"], magnitude="after"),
    fs.surrogate_gap(c["alpha"], minimize="clean"),
  ),
  "asam_samsung": lambda c: gradient(samsung(c)),
  "asam_layerwise": lambda c: gradient(samsung(c, layerwise=True)),
  "asam_linf": lambda c: gradient(samsung(c, norm="linf")),
  "asam_layerwise_linf": lambda c: gradient(
    samsung(c, layerwise=True, norm="linf")
  ),
  "samon_asam_layer": lambda c: gradient(
    fs.only(samsung(c, layerwise=True), fs.norm_layers)
  ),
  "samon_asam_linf": lambda c: gradient(
    fs.only(samsung(c, norm="linf"), fs.norm_layers)
  ),
  "wsam_decoupled": lambda c: decoupled(c, fs.sam(c["rho"])),
  "wsam_decoupled_adaptive": lambda c: decoupled(c, fs.asam(c["rho"])),
  "vasso": lambda c: gradient(fs.vasso(c["rho"], c["theta"], eps=1e-7)),
  "gnp": lambda c: gradient(fs.sam(c["r"]), fs.gnp(c["alpha"])),
  "gnp_normalized": lambda c: gradient(
    fs.sam(c["r"]), fs.gnp(c["alpha"], normalized=True)
  ),
  "fishersam": lambda c: gradient(fs.fisher_sam(c["gamma"], c["eta"])),
  "esam_official": lambda c: fs.esam(
    c["rho"],
    0,
    c["beta"],
    c["gamma"],
    official=True,
    mask=recorded(dict(zip(c.order, c.array("keep").T, strict=True))),
  ),
  "esam_elementwise": lambda c: fs.esam(
    c["rho"],
    0,
    c["beta"],
    c["gamma"],
    mask=recorded(c.tree(c.array("mask_flat"))),
  ),
  "looksam_pertensor": lambda c: fs.look_sam(
    fs.scale_to_radius(c["rho"], eps=1e-8),
    c["k"],
    c["alpha"],
    per_array=True,
    eps=1e-8,
  ),
  "msam_adamw": lambda c: (
    gradient(fs.momentum_ascent(c["rho"])),
    {"optimizer": adam_with_decay_after(c)},
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
  "layersam": lambda c: gradient(fs.layer_sam(c["pha"] * c["rho"])),
  "looklayersam": lambda c: fs.look_layer_sam(
    c["rho"], c["k"], c["alpha"], by_weights=False
  ),
  "sam_sps": lambda c: (
    gradient(
      fs.unified_sam(c["rho"], c["lambd"]),
      fs.polyak_step(c["f_star"], c["gamma_b"]),
    ),
    {"optimizer": optax.sgd(1.0)},
  ),
  "sampa": lambda c: fs.sampa(
    fs.sam(c["rho"]), c.base["lr"], c["og"], c.base["momentum"]
  ),
  "bsam": bayesian,
  "bsam_wd_m": bayesian,
  "lesam": loss_equated,
  "lesam_adaptive": loss_equated,
  "ssam_f": sparse_by_fisher,
  "ssam_d": sparse_by_turnover,
  "zsharp": lambda c: gradient(
    fs.zsharp(c["rho"], c["percentile"], per_array=True)
  ),
  "unified_sam": unified,
  "unified_sam_invt": unified,
  "gcsam": lambda c: gradient(fs.gc_sam(c["rho"], axis=0, full_norm=True)),
  "crsam": lambda c: fs.cr_sam(fs.sam(c["rho"]), c["gamma"], c["beta"]),
}

# Cases that no row meets, and why.
NOT_MET: dict[str, str] = {}
