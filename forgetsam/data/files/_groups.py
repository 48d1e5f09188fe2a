"""Groups of examples that a set names, whose worst accuracy is scored."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from forgetsam.data._tensorflow import tf

Masks = Mapping[str, Any]


class Groups(NamedTuple):
  """The feature that tells an example's group.

  Attributes:
    feature: its name.
    names: of the groups.
    masks: from labels and the feature's values, of one example or of many, to
      whether they are in each group, by its name.
  """

  feature: str
  names: tuple[str, ...]
  masks: Callable[[Any, Any], Masks]


def find_groups(features: Any) -> Groups | None:
  """The groups of a set with a class feature `group`, or with biased places.

  Of the biased sets: the examples whose place agrees with the label, and those
  where it conflicts.
  """
  import tensorflow_datasets as tfds

  if not isinstance(features, tfds.features.FeaturesDict):
    return None
  kinds = dict(features.items())
  group, place = kinds.get("group"), kinds.get("place")
  if isinstance(group, tfds.features.ClassLabel):
    names = tuple(group.names or ())
    return Groups(
      "group",
      names,
      lambda _, values: {name: values == i for i, name in enumerate(names)},
    )
  if isinstance(place, tfds.features.ClassLabel):
    return Groups("place", ("agree", "conflict"), _agreement)
  return None


def group_parser(
  features: Any, label: str, groups: Groups
) -> Callable[[Any], Masks]:
  """Makes a function from a serialised example to its groups."""
  names = (label, groups.feature)
  spec = {name: features.tf_example_spec[name] for name in names}

  def parse(serialised: "tf.Tensor") -> Masks:
    example = tf.io.parse_single_example(serialised, spec)
    return groups.masks(example[label], example[groups.feature])

  return parse


def _agreement(labels: Any, places: Any) -> Masks:
  return {"agree": places == labels, "conflict": places != labels}
