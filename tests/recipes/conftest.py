"""Made-up ImageNet and CIFAR, prepared once."""

from pathlib import Path

import pytest
from made_up_sets import make_set


@pytest.fixture(scope="session")
def made_up_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
  directory = tmp_path_factory.mktemp("made_up")
  make_set(
    directory,
    "imagenet2012",
    {"train": range(18), "validation": range(11)},
  )
  for name in ("cifar10", "cifar100"):
    labels = [i % 10 for i in range(40)]
    make_set(directory, name, {"train": labels, "test": labels[:11]})
  return directory
