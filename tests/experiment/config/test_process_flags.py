"""Processes learn their number from flags, from the launcher, or are alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from jax._src.clusters import K8sCluster
from tiny_runs import ROOT, tiny

from forgetsam.cli import JOBS
from forgetsam.experiment.config import (
  ConfigError,
  ProcessFlags,
  parse_command_line,
)
from forgetsam.experiment.run import joined
from forgetsam.experiment.run._launch import launch_arguments

ALL = ("--coordinator=h:1", "--num_processes=4", "--process_id=3")
SRUN = {
  "SLURM_JOB_ID": "5000",
  "SLURM_STEP_NODELIST": "gpu[07-10]",
  "SLURM_STEP_NUM_NODES": "4",
  "SLURM_STEP_NUM_TASKS": "32",
  "SLURM_NTASKS": "32",
  "SLURM_PROCID": "9",
  "SLURM_LOCALID": "1",
}


def parse(*flags: str) -> ProcessFlags:
  return parse_command_line(["--workdir=w", *flags], JOBS).processes


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
  """Sets the environment that a launcher gives."""

  def launch(**environment: str) -> dict[str, str]:
    for name in list(os.environ):
      if name.startswith(("SLURM_", "OMPI_", "JOB_", "KUBERNETES_", "CUDA_")):
        monkeypatch.delenv(name)
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    return environment

  return launch


def test_flags_say_all(launched):
  flags = parse(*ALL, "--connect_seconds=7")
  assert flags == ProcessFlags("h:1", 4, 3, 7)
  # Whatever the launcher says.
  arguments = launch_arguments(flags, launched(**SRUN))
  assert arguments == {
    "coordinator_address": "h:1",
    "num_processes": 4,
    "process_id": 3,
    "local_device_ids": [1],
    "cluster_detection_method": "deactivate",
  }


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (ALL[1:], "--coordinator is missing"),
    (("--num_processes=2",), "--coordinator is missing"),
    (("--process_id=1", "--num_processes=1"), "--coordinator is missing"),
    (ALL[:1], "--num_processes is missing"),
    (ALL[:2], "--process_id is missing"),
    ((*ALL[:2], "--process_id=4"), "--process_id=4 is refused"),
    (("--coordinator=h", *ALL[1:]), "--coordinator='h' is refused"),
    (("--coordinator=:1", *ALL[1:]), "--coordinator=':1' is refused"),
    (("--coordinator=h:99999", *ALL[1:]), "--coordinator='h:99999' is refused"),
    ((*ALL[:2], "--process_id=-1"), "process_id"),
    ((*ALL[:1], "--num_processes=0", ALL[2]), "num_processes"),
    ((*ALL, "--connect_seconds=0"), "connect_seconds"),
  ],
)
def test_incomplete_and_wrong_flags_are_refused(launched, flags, named):
  launched()
  with pytest.raises(ConfigError, match=r"allowed|must|bound") as error:
    parse(*flags)
  assert named in str(error.value)


@pytest.mark.parametrize(
  "environment",
  [
    {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"},
    {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"},
  ],
)
def test_a_launcher_numbers_the_processes_of_a_coordinator(
  launched, environment, monkeypatch
):
  launched(**environment)
  assert parse("--coordinator=h:1") == ProcessFlags("h:1", 4, 2)


@pytest.mark.parametrize(
  "environment",
  [
    {},  # a laptop
    # A shell in an allocation of 8 tasks, and in sbatch without srun.
    SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"},
    {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
    # srun -n 1, mpirun -n 1, a notebook's pod.
    SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
    {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
  ],
)
def test_one_process_stays_alone(launched, environment):
  assert launch_arguments(ProcessFlags(), launched(**environment)) is None


def test_one_process_stays_alone_where_told_to(launched):
  assert launch_arguments(parse("--num_processes=1"), launched(**SRUN)) is None


def test_srun_with_a_task_for_each_device(launched):
  found = launch_arguments(ProcessFlags(), launched(**SRUN))
  assert found == {
    # The first host of the list, and JAX's own choice of a port.
    "coordinator_address": f"gpu07:{65535 - 4096 + 1 + 5000 % 4096}",
    "num_processes": 32,
    "process_id": 9,
    "local_device_ids": [1],
    "cluster_detection_method": "deactivate",
  }


def test_srun_with_a_task_for_each_host_leaves_it_all_devices(launched):
  tasks = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
  assert launch_arguments(ProcessFlags(), launched(**SRUN | tasks)) == {
    "coordinator_address": f"gpu07:{65535 - 4096 + 1 + 5000 % 4096}",
    "num_processes": 4,
    "process_id": 3,
    "cluster_detection_method": "deactivate",
  }


def test_open_mpi_5_needs_a_coordinator(launched):
  size = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
  with pytest.raises(ConfigError, match="--coordinator is missing"):
    launch_arguments(ProcessFlags(), launched(**size))
  uri = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}
  found = launch_arguments(ProcessFlags(), launched(**size | uri))
  assert found == {
    "coordinator_address": f"h:{65535 - 4096 + 1}",
    "num_processes": 2,
    "process_id": 0,
    "cluster_detection_method": "deactivate",
  }


ONE_A_HOST = SRUN | {"SLURM_STEP_NUM_TASKS": "4"}
OMPI = {
  "OMPI_COMM_WORLD_SIZE": "16",
  "OMPI_COMM_WORLD_RANK": "13",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "8",
  "OMPI_COMM_WORLD_LOCAL_RANK": "5",
  "OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1",
}


@pytest.mark.parametrize("coordinator", [None, "h:1"])
@pytest.mark.parametrize(
  ("environment", "devices"),
  [
    (SRUN, [1]),
    (SRUN | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [1]),
    (SRUN | {"CUDA_VISIBLE_DEVICES": "3"}, [0]),  # bound to its own
    (SRUN | {"JAX_LOCAL_DEVICE_IDS": "2"}, None),  # JAX reads it
    (ONE_A_HOST, None),
    (OMPI, [5]),
    (OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, None),
    # mpirun starts its helpers by srun, one a host.
    (OMPI | ONE_A_HOST, [5]),
  ],
)
def test_processes_of_a_host_share_its_gpus(
  launched, coordinator, environment, devices
):
  flags = ProcessFlags(coordinator, coordinator and 16, coordinator and 13)
  found = launch_arguments(flags, launched(**environment))
  assert found is not None
  assert found.get("local_device_ids") == devices


@pytest.mark.parametrize("count", [1, 8])
def test_kubernetes_is_asked_how_many_there_are(launched, monkeypatch, count):
  monkeypatch.setattr(K8sCluster, "is_env_present", lambda: True)
  monkeypatch.setattr(K8sCluster, "get_process_count", lambda: count)
  found = launch_arguments(ProcessFlags(), launched(JOB_COMPLETION_INDEX="0"))
  assert found == ({"cluster_detection_method": "k8s"} if count > 1 else None)


def test_kubernetes_that_may_not_be_asked_is_named(launched, monkeypatch):
  def forbidden() -> int:
    raise RuntimeError("Kubernetes API Error: 403 - Forbidden")

  monkeypatch.setattr(K8sCluster, "is_env_present", lambda: True)
  monkeypatch.setattr(K8sCluster, "get_process_count", forbidden)
  environment = launched(JOB_COMPLETION_INDEX="0")
  with pytest.raises(ConfigError, match="403 - Forbidden") as error:
    launch_arguments(ProcessFlags(), environment)
  assert "--num_processes=1" in str(error.value)
  assert "--coordinator=HOST:PORT" in str(error.value)
  assert launch_arguments(parse("--num_processes=1"), environment) is None


@pytest.mark.parametrize("job", ["sharpness", "forgetting", "sweep", "study"])
def test_jobs_that_are_not_shared_say_so(job, tmp_path):
  with (
    pytest.raises(ConfigError, match=f"--job='{job}' is refused"),
    joined(ProcessFlags("h:1", 2, 0), job, tmp_path),
  ):
    pytest.fail("it ran")


def test_whoever_waits_alone_is_told_so(tmp_path: Path, data_dir: Path):
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
  found = subprocess.run(
    [
      *(sys.executable, "main.py", *tiny(tmp_path / "run", data_dir)),
      *(f"--coordinator=127.0.0.1:{port}", "--num_processes=2"),
      *("--process_id=1", "--connect_seconds=2"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert found.returncode == 1
  last = found.stderr.strip().splitlines()[-1]
  assert last.startswith("Not all processes of this run found each other at")
  assert "within --connect_seconds=2" in last
  assert not (tmp_path / "run").exists()
