"""Grids: what is read, and what is refused."""

import pytest

from forgetsam.experiment.config import ConfigError
from forgetsam.experiment.sweep import parse_grid, settings


def test_a_grid_is_a_product_in_order():
  grid = parse_grid(" optimizer.weight_decay=0, 1e-4 ;config.epochs=3,4")
  assert list(settings(grid)) == [
    {"optimizer.weight_decay": "0", "epochs": "3"},
    {"optimizer.weight_decay": "0", "epochs": "4"},
    {"optimizer.weight_decay": "1e-4", "epochs": "3"},
    {"optimizer.weight_decay": "1e-4", "epochs": "4"},
  ]


@pytest.mark.parametrize(
  ("text", "named"),
  [
    ("", "''"),
    ("optimizer.weight_decay", "KEY=VALUE"),
    ("optimizer.weight_decay=", "KEY=VALUE"),
    ("optimizer.weight_decay=0,,1", "KEY=VALUE"),
    ("=1", "KEY=VALUE"),
    ("epochs=1;epochs=2", "once"),
    ("seed=1,2", "--seeds"),
    ("data.label_noise=0,0.2", "stay as they are"),
  ],
)
def test_what_is_no_grid_is_refused(text: str, named: str):
  with pytest.raises(ConfigError, match="--grid=") as refused:
    parse_grid(text)
  assert named in str(refused.value)
