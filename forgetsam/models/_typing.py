"""The types that all models share."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

NDArray = Array | np.ndarray
Images = Float[NDArray, "batch height width channels"]
Logits = Float[Array, "batch classes"]

Params = Any
ModelState = dict[str, Any]  # by collection, such as "batch_stats"
Forward = Callable[..., tuple[Array, ModelState]]
