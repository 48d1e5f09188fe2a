"""Options without a default of built-in components, which tests name."""

NEEDED = {
  "eigen_sam": {"alpha": 0.2},
  "gam": {"norm_rho": 0.1},
  "le_sam": {"sigma": 0.1},
  "look_layer_sam": {"k": 2, "alpha": 0.5},
  "look_sam": {"k": 2, "alpha": 0.5},
  "lookbehind": {"k": 2},
  "unified_sam": {"lam": 0.5},
  "xsam": {"rho_max": 0.1},
}
