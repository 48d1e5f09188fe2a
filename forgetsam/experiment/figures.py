"""The common look of figures; matplotlib is imported where one is drawn."""

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def new_figure(width: float, height: float, dpi: int = 150) -> "Figure":
  """An empty figure, in inches."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def add_grid(axis: Any, which: Literal["both", "x"] = "both") -> None:
  """Draws light lines behind the data."""
  axis.grid(axis=which, color="#e4e4e4")
  axis.set_axisbelow(True)


def add_legend(figure: "Figure", axis: Any, ncols: int) -> None:
  """Draws a legend of an axis above the figure, each label once."""
  handles, labels = axis.get_legend_handles_labels()
  unique = dict(zip(labels, handles, strict=True))
  figure.legend(
    unique.values(),
    unique.keys(),
    loc="outside upper center",
    ncols=ncols,
    frameon=False,
  )
