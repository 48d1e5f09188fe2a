"""Whether a launcher started several processes, and where they meet."""

from collections.abc import Mapping
from typing import Any

from forgetsam.config import ConfigError
from forgetsam.config._process_flags import ProcessFlags


def launch_arguments(
  flags: ProcessFlags, environment: Mapping[str, str]
) -> dict[str, Any] | None:
  """What to hand to `jax.distributed.initialize`; None for one process.

  Raises:
    ConfigError: a launcher started several, and does not say where they meet.
  """
  if flags.num_processes == 1:
    return None
  if flags.coordinator is not None:
    return {
      "coordinator_address": flags.coordinator,
      "num_processes": flags.num_processes,
      "process_id": flags.process_id,
      "cluster_detection_method": "deactivate",
    }
  method = _detected(environment)
  if method is None:
    return None
  if method == "slurm" and _one_per_host(environment):
    return _whole_hosts(environment)
  return {"cluster_detection_method": method}


def _detected(environment: Mapping[str, str]) -> str | None:
  """JAX's name for the launcher that started several processes, if one did.

  JAX itself takes an allocation for a launch, and a pod for a job: it would
  wait in a shell for tasks that no one started.
  """
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


def _one_per_host(environment: Mapping[str, str]) -> bool:
  hosts = environment.get("SLURM_STEP_NUM_NODES")
  return hosts == environment["SLURM_STEP_NUM_TASKS"]


def _whole_hosts(environment: Mapping[str, str]) -> dict[str, Any]:
  """One task a host has all of its devices; JAX would give it the first."""
  from jax._src.clusters import SlurmCluster

  port = environment.get("JAX_COORDINATOR_PORT")
  return {
    "coordinator_address": SlurmCluster.get_coordinator_address(None, port),
    "num_processes": int(environment["SLURM_STEP_NUM_TASKS"]),
    "process_id": int(environment["SLURM_PROCID"]),
    "cluster_detection_method": "deactivate",
  }


def _kubernetes_can_tell() -> bool:
  from jax._src.clusters import K8sCluster

  return K8sCluster.is_env_present() and K8sCluster.get_process_count() > 1


def _tpu_pod() -> str | None:
  from jax._src import clusters

  for kind in (clusters.GkeTpuCluster, clusters.GceTpuCluster):
    if kind.is_env_present() and kind.get_process_count() > 1:
      return kind.name
  return None
