"""Sets whose bias is known: a patch whose place tells the label.

The TFDS sets `biased_digits` and `biased_fashion` are the real images with a
small white patch at one of K places, one for each class. In training the place
is the label's with probability q; the test splits say how much of a network's
accuracy that was.
"""

from forgetsam.data.biased._patch import (
  PATCH_SIZE,
  corners,
  draw_places,
  paste,
)

__all__ = ["PATCH_SIZE", "corners", "draw_places", "paste"]
