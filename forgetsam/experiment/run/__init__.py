"""A run: its loop, its checkpoints, its folder and its processes."""

from typing import TYPE_CHECKING, Any

from forgetsam.experiment.run._begun import (
  DataRecord,
  as_begun,
  with_recorded_modules,
  with_recorded_place,
)
from forgetsam.experiment.run._checksums import leaf_checksums, tree_sha256
from forgetsam.experiment.run._compilation_cache import keep_compiled_programs
from forgetsam.experiment.run._delta_examples import (
  DELTA_EXAMPLES,
  check_delta_examples,
  delta_examples,
  micro_batch,
)
from forgetsam.experiment.run._distributed import joined
from forgetsam.experiment.run._failures import report_failure
from forgetsam.experiment.run._jax_settings import (
  check_devices,
  check_jax_settings,
)
from forgetsam.experiment.run._metrics import Clock, EpochMeans, own_metrics
from forgetsam.experiment.run._metrics_file import (
  METRICS,
  MetricsFile,
  read_events,
  read_metrics,
)
from forgetsam.experiment.run._non_finite import (
  NonFiniteStepError,
  NonFiniteSteps,
)
from forgetsam.experiment.run._pace import Pace
from forgetsam.experiment.run._preemption import PreemptedError, Preemption
from forgetsam.experiment.run._processes import (
  is_main,
  num_devices,
  on_main,
  process_shard,
)
from forgetsam.experiment.run._reporting import (
  Reporter,
  duration,
  log_stage,
  print_summary,
  set_up_logging,
)
from forgetsam.experiment.run._workdir import (
  CHECKPOINTS,
  CONFIG,
  EVALUATION,
  SUMMARY,
  CheckpointError,
  WorkdirLock,
  check_folder,
  check_saved,
  check_workdir,
  claim_workdir,
  load_config,
  read_json,
  write_json,
)
from forgetsam.experiment.run._writers import (
  Events,
  Wandb,
  Writer,
  check_wandb,
  open_writers,
)

if TYPE_CHECKING:
  from forgetsam.experiment.run._checkpoint import Checkpoints, Variables
  from forgetsam.experiment.run._experiment import Experiment, Intervals
  from forgetsam.experiment.run._loop import Loop

__all__ = [
  "CHECKPOINTS",
  "CONFIG",
  "DELTA_EXAMPLES",
  "EVALUATION",
  "METRICS",
  "SUMMARY",
  "CheckpointError",
  "Checkpoints",
  "Clock",
  "DataRecord",
  "EpochMeans",
  "Events",
  "Experiment",
  "Intervals",
  "Loop",
  "MetricsFile",
  "NonFiniteStepError",
  "NonFiniteSteps",
  "Pace",
  "PreemptedError",
  "Preemption",
  "Reporter",
  "Variables",
  "Wandb",
  "WorkdirLock",
  "Writer",
  "as_begun",
  "check_delta_examples",
  "check_devices",
  "check_folder",
  "check_jax_settings",
  "check_saved",
  "check_wandb",
  "check_workdir",
  "claim_workdir",
  "delta_examples",
  "duration",
  "is_main",
  "joined",
  "keep_compiled_programs",
  "leaf_checksums",
  "load_config",
  "log_stage",
  "micro_batch",
  "num_devices",
  "on_main",
  "open_writers",
  "own_metrics",
  "print_summary",
  "process_shard",
  "read_events",
  "read_json",
  "read_metrics",
  "report_failure",
  "set_up_logging",
  "tree_sha256",
  "with_recorded_modules",
  "with_recorded_place",
  "write_json",
]


def __getattr__(name: str) -> Any:
  # orbax takes seconds to import, and not every command needs it.
  if name in ("Checkpoints", "Variables"):
    from forgetsam.experiment.run import _checkpoint as module
  elif name in ("Experiment", "Intervals"):
    from forgetsam.experiment.run import _experiment as module  # type: ignore[no-redef]
  elif name == "Loop":
    from forgetsam.experiment.run import _loop as module  # type: ignore[no-redef]
  else:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(module, name)
