"""Pictures of spectra and loss surfaces; they need matplotlib."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from forgetsam._lab import lab_packages
from forgetsam.sharpness._spectrum import SpectralDensity

# One dark and one light tone: the picture reads the same in grey.
_LINE, _BAND = "#0b4f8a", "#a9c4dc"


def plot_spectral_density(density: SpectralDensity) -> Any:
  """Draws the density of eigenvalues, over six decades.

  Args:
    density: as `spectral_density` gives it.

  Returns:
    A matplotlib `Figure`; `figure.savefig(path)` writes it.

  Raises:
    ImportError: matplotlib is not installed.
  """
  figure, axis = _figure("plot_spectral_density")
  grid, mean, error = (np.asarray(x) for x in density[:3])
  low = 1e-6 * mean.max()
  axis.fill_between(
    grid,
    np.maximum(mean - error, low),
    np.maximum(mean + error, low),
    color=_BAND,
    label="± standard error",
  )
  axis.plot(grid, np.maximum(mean, low), color=_LINE, linewidth=1.2)
  axis.axvline(0, color="black", linestyle=":", linewidth=0.8)
  axis.set_yscale("log")
  axis.set_ylim(low, None)
  axis.set_xlabel("eigenvalue (loss per squared unit of weight)")
  axis.set_ylabel("density (per unit of eigenvalue)")
  axis.legend(frameon=False)
  return figure


def plot_loss_surface(
  surface: Float[Array | np.ndarray, "n n"],
  grid: Float[Array | np.ndarray, " n"],
  *,
  names: tuple[str, str] = ("first direction", "second direction"),
) -> Any:
  """Draws the loss over a plane, with contours, and a dot at the weights.

  Args:
    surface: as `loss_surface` gives it.
    grid: the same as there.
    names: of the horizontal and the vertical direction.

  Returns:
    A matplotlib `Figure`; `figure.savefig(path)` writes it.

  Raises:
    ImportError: matplotlib is not installed.
  """
  figure, axis = _figure("plot_loss_surface")
  # Viridis grows lighter with the loss, in grey too.
  filled = axis.contourf(grid, grid, surface, levels=24, cmap="viridis")
  lines = axis.contour(
    grid, grid, surface, filled.levels[::3], colors="white", linewidths=0.7
  )
  axis.plot(0, 0, "o", markersize=7, markeredgecolor="black", color="white")
  axis.set_aspect("equal")
  axis.set_xlabel(f"{names[0]} (distance of weights)")
  axis.set_ylabel(f"{names[1]} (distance of weights)")
  figure.colorbar(filled, ax=axis, label="loss (nats)").add_lines(lines)
  return figure


def _figure(function: str) -> tuple[Any, Any]:
  with lab_packages(function):
    from matplotlib.figure import Figure

  figure = Figure(figsize=(5.2, 4.0), dpi=150, layout="constrained")
  return figure, figure.subplots()
