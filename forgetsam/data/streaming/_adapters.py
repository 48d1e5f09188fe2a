"""Per TFDS set: the names of its labels and splits, and how it is scored."""

import dataclasses

from forgetsam.data._search import HUB

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
  """How to read one TFDS set."""

  train: str | None = None  # the split to train on
  test: str = "test"  # the split to test on
  label: str = "label"  # the feature that holds the label
  multi_label: bool = False  # any number of labels, all of them right
  resize: bool = True  # not where images were corrupted at their final size
  default_config: str | None = None  # unless the name has one
  needs_config: bool = False  # the name must have one
  subset: bool = False  # the images show `IMAGENET_R`'s classes only


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
  """
  if name.startswith(HUB):
    return name, Adapter(train="train")
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


# The 200 classes of ImageNet that ImageNet-R has renditions of: WordNet ids,
# from the set's own evaluation code (Hendrycks et al., *The Many Faces of
# Robustness*, 2021). TFDS labels the images among all 1000 classes.
_WNIDS = """
  n01443537 n01484850 n01494475 n01498041 n01514859 n01518878 n01531178
  n01534433 n01614925 n01616318 n01630670 n01632777 n01644373 n01677366
  n01694178 n01748264 n01770393 n01774750 n01784675 n01806143 n01820546
  n01833805 n01843383 n01847000 n01855672 n01860187 n01882714 n01910747
  n01944390 n01983481 n01986214 n02007558 n02009912 n02051845 n02056570
  n02066245 n02071294 n02077923 n02085620 n02086240 n02088094 n02088238
  n02088364 n02088466 n02091032 n02091134 n02092339 n02094433 n02096585
  n02097298 n02098286 n02099601 n02099712 n02102318 n02106030 n02106166
  n02106550 n02106662 n02108089 n02108915 n02109525 n02110185 n02110341
  n02110958 n02112018 n02112137 n02113023 n02113624 n02113799 n02114367
  n02117135 n02119022 n02123045 n02128385 n02128757 n02129165 n02129604
  n02130308 n02134084 n02138441 n02165456 n02190166 n02206856 n02219486
  n02226429 n02233338 n02236044 n02268443 n02279972 n02317335 n02325366
  n02346627 n02356798 n02363005 n02364673 n02391049 n02395406 n02398521
  n02410509 n02423022 n02437616 n02445715 n02447366 n02480495 n02480855
  n02481823 n02483362 n02486410 n02510455 n02526121 n02607072 n02655020
  n02672831 n02701002 n02749479 n02769748 n02793495 n02797295 n02802426
  n02808440 n02814860 n02823750 n02841315 n02843684 n02883205 n02906734
  n02909870 n02939185 n02948072 n02950826 n02951358 n02966193 n02980441
  n02992529 n03124170 n03272010 n03345487 n03372029 n03424325 n03452741
  n03467068 n03481172 n03494278 n03495258 n03498962 n03594945 n03602883
  n03630383 n03649909 n03676483 n03710193 n03773504 n03775071 n03888257
  n03930630 n03947888 n04086273 n04118538 n04133789 n04141076 n04146614
  n04147183 n04192698 n04254680 n04266014 n04275548 n04310018 n04325704
  n04347754 n04389033 n04409515 n04465501 n04487394 n04522168 n04536866
  n04552348 n04591713 n07614500 n07693725 n07695742 n07697313 n07697537
  n07714571 n07714990 n07718472 n07720875 n07734744 n07742313 n07745940
  n07749582 n07753275 n07753592 n07768694 n07873807 n07880968 n07920052
  n09472597 n09835506 n10565667 n12267677
"""
IMAGENET_R = tuple(_WNIDS.split())
