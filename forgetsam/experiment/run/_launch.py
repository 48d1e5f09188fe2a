"""Detects whether a launcher started several processes, and their coordinator.

Own code: JAX's detection takes an allocation for a launch, and a pod for a job.
It would wait in a shell for tasks that no one started.
"""

from collections.abc import Mapping
from typing import Any

from forgetsam.experiment.config import LAUNCHERS, ConfigError, ProcessFlags


def launch_arguments(
  flags: ProcessFlags, environment: Mapping[str, str]
) -> dict[str, Any] | None:
  """The arguments of `jax.distributed.initialize`; None for one process."""
  if flags.num_processes == 1:
    return None
  host, count, index = flags.coordinator, flags.num_processes, flags.process_id
  if host is None:
    method = _detected(environment)
    if method is None or method not in LAUNCHERS:
      return None if method is None else {"cluster_detection_method": method}
    host = _first_host(method, environment)
    count, index = (int(environment[name]) for name in LAUNCHERS[method])
  return {
    "coordinator_address": host,
    "num_processes": count,
    "process_id": index,
    **_devices(environment),
    "cluster_detection_method": "deactivate",
  }


def _detected(environment: Mapping[str, str]) -> str | None:
  """JAX's name for the launcher that started several processes, if one did."""
  if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    if "OMPI_MCA_orte_hnp_uri" in environment:
      return "ompi"
    raise ConfigError(
      "--coordinator is missing\n  allowed: --coordinator=HOST:PORT, a free "
      "port on the first host; this release of Open MPI does not tell JAX"
    )
  # Set by srun alone, and 1 in an interactive shell of salloc.
  if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
    return "slurm"
  if "JOB_COMPLETION_INDEX" in environment and _kubernetes_can_tell():
    return "k8s"
  return _tpu_pod()


def _first_host(method: str, environment: Mapping[str, str]) -> str:
  from jax._src.clusters import OmpiCluster, SlurmCluster

  kind = OmpiCluster if method == "ompi" else SlurmCluster
  port = environment.get("JAX_COORDINATOR_PORT")
  return kind.get_coordinator_address(None, port)


def _devices(environment: Mapping[str, str]) -> dict[str, list[int]]:
  """One GPU for each of a host's processes, or all for the only one.

  JAX would give the only one the first, or with `--coordinator` each one all.
  """
  local = _local_rank(environment)
  if local is None or "JAX_LOCAL_DEVICE_IDS" in environment:
    return {}
  seen = environment.get("CUDA_VISIBLE_DEVICES", "")
  # The launcher may have left each process but its own, which is its first.
  return {"local_device_ids": [0 if seen and "," not in seen else local]}


def _local_rank(environment: Mapping[str, str]) -> int | None:
  """This process's index among its host's; None where it is the only one."""
  if "OMPI_COMM_WORLD_SIZE" in environment:
    if int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1)) > 1:
      return int(environment["OMPI_COMM_WORLD_LOCAL_RANK"])
    return None
  tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
  if tasks > int(environment.get("SLURM_STEP_NUM_NODES", tasks)):
    return int(environment["SLURM_LOCALID"])
  return None


def _kubernetes_can_tell() -> bool:
  """Asks the cluster whether this pod is one of several of a job."""
  from jax._src.clusters import K8sCluster

  try:
    return K8sCluster.is_env_present() and K8sCluster.get_process_count() > 1
  except Exception as error:  # of the package kubernetes, which may be missing
    raise ConfigError(
      "Kubernetes does not say whether this pod is one of several of a run\n"
      "  allowed: --num_processes=1 for a run of its own, or "
      "--coordinator=HOST:PORT beside --num_processes and --process_id\n"
      f"{error}"
    ) from error


def _tpu_pod() -> str | None:
  from jax._src import clusters

  for kind in (clusters.GkeTpuCluster, clusters.GceTpuCluster):
    if kind.is_env_present() and kind.get_process_count() > 1:
      return kind.name
  return None
