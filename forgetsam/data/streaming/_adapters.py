"""What each TFDS set calls its labels and splits, and how it is scored."""

import dataclasses

# Hendrycks & Dietterich, 2019: the corruptions whose errors are averaged, by
# TFDS's names for them. Further ones in TFDS's sets are for validation.
_CORRUPTIONS = (
  *("gaussian_noise", "shot_noise", "impulse_noise"),
  *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
  *("snow", "frost", "fog", "brightness"),
  *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
_CIFAR_NAMES = {
  "glass_blur": "frosted_glass_blur",
  "elastic_transform": "elastic",
}
_SEVERITIES = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Adapter:
  """How to read one TFDS set.

  Attributes:
    train: split to train on, or None.
    test: split to test on.
    label: the feature that holds the label.
    multi_label: whether an image has any number of labels, all of them right.
    resize: whether evaluation resizes and crops. Images that were corrupted at
      their final size are taken as they are.
    default_config: the TFDS configuration, unless the name has one.
    needs_config: whether the name must have one.
    subset: whether the images show `IMAGENET_R`'s classes only.
  """

  train: str | None = None
  test: str = "test"
  label: str = "label"
  multi_label: bool = False
  resize: bool = True
  default_config: str | None = None
  needs_config: bool = False
  subset: bool = False


_ADAPTERS = {
  "imagenet2012": Adapter(train="train", test="validation"),
  "imagenet2012_real": Adapter(
    test="validation", label="real_label", multi_label=True
  ),
  "imagenet_v2": Adapter(default_config="matched-frequency"),
  "imagenet_r": Adapter(subset=True),
  "imagenet_sketch": Adapter(),
  "imagenet2012_corrupted": Adapter(
    test="validation", resize=False, needs_config=True
  ),
  "cifar10_corrupted": Adapter(needs_config=True),
}


def find_adapter(name: str) -> tuple[str, Adapter]:
  """The full TFDS name of a set, and how to read it.

  Sets that are not listed have the features `image` and `label` and the splits
  `train` and `test`, as CIFAR, MNIST and the digits do.

  Raises:
    ValueError: the name lacks the configuration that says which corruption.
  """
  base = name.split("/")[0].split(":")[0]
  adapter = _ADAPTERS.get(base, Adapter(train="train"))
  if "/" in name:
    return name, adapter
  if adapter.needs_config:
    raise ValueError(
      f"{name!r} holds one set for each corruption and severity; name one, such"
      f" as {next(iter(corrupted_sets(base).values()))!r}"
    )
  if adapter.default_config is None:
    return name, adapter
  _, *version = name.split(":")
  return ":".join([f"{base}/{adapter.default_config}", *version]), adapter


def corrupted_sets(name: str) -> dict[tuple[str, int], str]:
  """The 75 TFDS names of a corrupted set, by corruption and severity.

  TFDS corrupts ImageNet at 224 pixels and stores the result as JPEG once more:
  errors on it do not compare with those published on ImageNet-C.

  Args:
    name: `imagenet2012_corrupted` or `cifar10_corrupted`.

  Returns:
    TFDS names, by one of 15 corruptions and a severity from 1 to 5.

  Raises:
    ValueError: another name.

  Example:
    >>> corrupted_sets("cifar10_corrupted")["glass_blur", 3]
    'cifar10_corrupted/frosted_glass_blur_3'

  References:
    Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to Common
    Corruptions and Perturbations*, 2019.
  """
  if name not in ("imagenet2012_corrupted", "cifar10_corrupted"):
    raise ValueError(
      f"name={name!r} must be imagenet2012_corrupted or cifar10_corrupted"
    )
  names = _CIFAR_NAMES if name.startswith("cifar") else {}
  return {
    (corruption, severity): (
      f"{name}/{names.get(corruption, corruption)}_{severity}"
    )
    for corruption in _CORRUPTIONS
    for severity in _SEVERITIES
  }
