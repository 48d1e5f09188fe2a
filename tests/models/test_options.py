"""Options of impossible values or types are refused by name."""

import pytest

from forgetsam import models
from forgetsam._checks import check_count, check_number
from forgetsam.models import _options


@pytest.mark.parametrize(
  ("name", "option", "value"),
  [
    ("mlp", "num_classes", 0),
    ("mlp", "activation", "swish"),
    ("mlp", "dropout", 1.0),
    ("mlp", "dropout", -0.1),
    ("mlp", "dropout", float("nan")),
    ("mlp", "hidden", (16, 0)),
    ("mlp", "head_bias", float("inf")),
    ("mlp", "dtype", "int8"),
    ("mlp", "dtype", "float23"),
    ("cnn", "num_classes", -1),
    ("cnn", "widths", (-8,)),
    ("cnn", "dropout", 2.0),
    ("cnn", "head_bias", float("nan")),
    ("cnn", "dtype", "bool"),
    ("vit_tiny", "num_classes", 0),
    ("vit_tiny", "patch_size", 0),
    ("vit_tiny", "width", -64),
    ("vit_tiny", "depth", 0),
    ("vit_tiny", "num_heads", 0),
    ("vit_tiny", "num_heads", 5),
    ("vit_tiny", "mlp_ratio", 0),
    ("vit_tiny", "dropout", 1.0),
    ("vit_tiny", "head_bias", float("inf")),
    ("vit_tiny", "dtype", "complex64"),
    ("resnet50", "num_classes", 0),
    ("resnet50", "stage_sizes", (3, 0)),
    ("resnet50", "width", 0),
    ("resnet50", "stem", "tiny"),
    ("resnet50", "dropout", 1.0),
    ("resnet50", "head_bias", float("nan")),
    ("resnet50", "dtype", "int32"),
  ],
)
def test_impossible_values_are_refused_at_creation(name, option, value):
  with pytest.raises(ValueError, match=rf"{option}.*=.* must "):
    models.create(name, **{"num_classes": 10, option: value})


def test_an_unknown_activation_lists_the_known_ones():
  with pytest.raises(ValueError, match=r"'swish'.*'gelu', 'relu', 'tanh'"):
    models.create("mlp", 10, activation="swish")


# Not through `create`: run-time type checks would be there first.
@pytest.mark.parametrize(
  ("check", "value"),
  [
    (check_count, 1.0),
    (check_count, True),
    (check_count, "1"),
    (_options.check_widths, 16),
    (_options.check_widths, "16"),
    (_options.check_widths, (8.0,)),
    (check_number, "0.1"),
    (check_number, None),
    (check_number, False),
    (_options.check_flag, "no"),
    (_options.check_flag, 1),
  ],
)
def test_values_of_the_wrong_type_are_refused(check, value):
  with pytest.raises(ValueError, match=r"option.*=.*must be"):
    check("option", value)
