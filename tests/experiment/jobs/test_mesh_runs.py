"""Runs on meshes with further axes: 8 devices, then 4, then 1, and measured."""

import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from one_of_two import end_after
from tiny_runs import tiny

import forgetsam as fs
import main
from forgetsam.experiment.build import build_experiment
from forgetsam.experiment.config import ConfigError, parse_command_line
from forgetsam.experiment.run import Reporter

pytestmark = pytest.mark.slow

# Adam would turn rounding into signs where a gradient is zero.
SGD = (
  "--config.optimizer.name=sgdw",
  "--config.optimizer.learning_rate=0.1",
  "--config.micro_batch_size=32",
  "--config.evaluation.every_epochs=2",
  "--config.forgetting.per_class=4",
  "--config.forgetting.micro_batch_size=16",
  "--config.sharpness.examples=64",
)


def run(
  arguments: list[str], devices: int, stop: int | None = None, status: int = 0
) -> None:
  """Runs the program on some devices, and may end it after some steps."""
  advance = Reporter.advance if stop is None else end_after(stop)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_device_count", lambda: devices)
    try:
      assert main.run(arguments, time.monotonic()) == status
    finally:
      Reporter.advance = advance  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def folders(
  tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> tuple[Path, Path]:
  """A run that moved from 8 devices to 4 and to 1, and one of 1 device."""
  folder = tmp_path_factory.mktemp("meshes")
  moved, alone = folder / "moved", folder / "alone"
  begin = tiny(moved, data_dir, *SGD)
  run([*begin, "--config.mesh.fsdp=4"], 8, stop=3)
  run([*begin, "--config.mesh.fsdp=2", "--config.mesh.model=2"], 4, stop=6)
  run(begin, 1)
  run(tiny(alone, data_dir, *SGD), 1)
  return moved, alone


def test_a_run_may_move_from_mesh_to_mesh(folders: tuple[Path, Path]):
  moved, alone = (
    jax.tree.leaves(fs.load_run(folder)[1]["params"]) for folder in folders
  )
  for x, y in zip(moved, alone, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
  summaries = [json.loads((f / "summary.json").read_text()) for f in folders]
  assert summaries[0]["steps"] == 10
  assert summaries[0]["config_hash"] == summaries[1]["config_hash"]


@pytest.mark.long
def test_scores_are_the_same_on_a_mesh(
  folders: tuple[Path, Path], data_dir: Path
):
  arguments = tiny(folders[0], data_dir, *SGD)
  found = []
  for devices, *mesh in [
    (1,),
    (8, "--config.mesh.fsdp=2", "--config.mesh.model=2"),
  ]:
    run([*arguments, *mesh, "--job=evaluate"], devices)
    scores = json.loads((folders[0] / "evaluation.json").read_text())
    found.append(scores)
  assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("job", ["sharpness", "forgetting"])
def test_measuring_jobs_take_the_weights_whole(
  folders: tuple[Path, Path], data_dir: Path, job: str
):
  arguments = tiny(folders[0], data_dir, *SGD, f"--job={job}")
  run([*arguments, "--config.mesh.fsdp=4"], 8)


def build(data_dir: Path, tmp_path: Path, *extra: str) -> Any:
  arguments = tiny(tmp_path, data_dir, *SGD, *extra)
  config = parse_command_line(arguments, ["train"]).config
  assert config is not None
  return build_experiment(config)


@pytest.mark.parametrize("variant", ["obf", "plain"])
def test_perturbed_micro_batches_stay_what_they_were(
  data_dir: Path,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
  variant: str,
):
  """By default they are a device's share: 8 examples of 8, 64 of one."""
  share = "--config.micro_batch_size=None"
  begin = tiny(tmp_path / "run", data_dir, share, variant=variant)
  run(begin, 8, stop=3)
  if variant == "plain":
    run(begin, 1)
    return
  capsys.readouterr()
  run(begin, 1, status=2)
  said = " ".join(capsys.readouterr().err.split())
  assert "config.micro_batch_size=None is refused" in said
  assert "have 8 examples there, and would have 64 here" in said
  run([*begin, "--config.mesh.fsdp=2"], 8, status=2)
  assert "would have 16 here" in " ".join(capsys.readouterr().err.split())
  run(begin, 8)


def test_a_run_holds_its_state_in_parts(data_dir: Path, tmp_path: Path):
  experiment = build(data_dir, tmp_path, "--config.mesh.fsdp=4")
  state = experiment.create_state()
  kernel = state.params["Dense_0"]["kernel"]
  assert kernel.sharding.mesh.shape == {"data": 2, "fsdp": 4}
  assert kernel.addressable_shards[0].data.size == kernel.size // 4
  (batch,) = experiment.train_batches(0, 1)
  assert batch["image"].addressable_shards[0].data.shape[0] == 64 // 8


NET = """
import flax.linen as nn

class Net(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, x, *, train=False):
    init = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    x = nn.Dense(16, kernel_init=init)(x.reshape(len(x), -1))
    return nn.Dense(self.num_classes)(x)
"""


def test_a_model_of_ones_own_names_its_axes(data_dir: Path, tmp_path: Path):
  (tmp_path / "partitioned.py").write_text(NET)
  experiment = build(
    data_dir,
    tmp_path,
    "--config.mesh.fsdp=2",
    "--config.mesh.model=2",
    "--config.model.name=partitioned:Net",
    "--config.model.hidden=none",
    f"--config.modules=('{tmp_path}',)",
  )
  kernel = experiment.create_state().params["Dense_0"]["kernel"]
  assert kernel.sharding.spec == PartitionSpec("fsdp", "model")


REFUSED = {
  "fsdp=3 is refused\n.*divisor of the number of devices, 8": (
    "--config.mesh.fsdp=3",
  ),
  "model=4 is refused\n.*divisor of 2": (
    "--config.mesh.fsdp=4",
    "--config.mesh.model=4",
  ),
  "micro_batch_size=2 .*\n.*multiple of config.mesh.fsdp=4": (
    "--config.mesh.fsdp=4",
    "--config.micro_batch_size=2",
  ),
  "batch_size=20 .*\n.*multiple of the number of devices, 8": (
    "--config.mesh.fsdp=4",
    "--config.batch_size=20",
    "--config.evaluation.batch_size=64",
  ),
}


@pytest.mark.parametrize("match", REFUSED)
def test_meshes_that_do_not_divide_are_refused(
  data_dir: Path, tmp_path: Path, match: str, capsys: pytest.CaptureFixture[str]
):
  arguments = tiny(tmp_path / "run", data_dir, *REFUSED[match])
  assert main.run(arguments, time.monotonic()) != 0
  assert re.search(match, capsys.readouterr().err)
  assert not (tmp_path / "run").exists()


def test_models_without_an_axis_for_it_are_refused(
  data_dir: Path, tmp_path: Path
):
  cnn = ("--config.model.name=cnn", "--config.model.hidden=none")
  with pytest.raises(ConfigError, match=r"mesh.model=2 .*\n.*1 where no param"):
    build(data_dir, tmp_path, "--config.mesh.model=2", *cnn)
  odd = ("--config.mesh.model=2", "--config.model.hidden=(9,)")
  with pytest.raises(ConfigError, match=r"mesh.model=2 .*\n.*must divide 9"):
    build(data_dir, tmp_path, *odd)
