"""The flags that say which of several processes this one is."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags

from forgetsam.experiment.config._errors import ConfigError, refusal

# What launchers tell each process: how many there are, and which one it is.
LAUNCHERS = {
  "ompi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
  "slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}


class ProcessFlags(NamedTuple):
  """One of a run's processes.

  Attributes:
    coordinator: HOST:PORT, on which process 0 listens; None leaves all to the
      launcher's environment.
    num_processes: how many there are; 1 stays alone whatever the environment.
    process_id: which this is, from 0.
    connect_seconds: how long to wait for the others.
  """

  coordinator: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  connect_seconds: int = 300


def define_process_flags(values: flags.FlagValues) -> None:
  """Adds the flags."""
  about = "HOST:PORT on which the first of several processes listens"
  flags.DEFINE_string("coordinator", None, about, flag_values=values)
  for name, low, about in [
    ("num_processes", 1, "Processes of the run"),
    ("process_id", 0, "Which of them this is, from 0"),
    ("connect_seconds", 1, "Seconds to wait for the others"),
  ]:
    default = ProcessFlags._field_defaults[name]
    flags.DEFINE_integer(
      name, default, about, lower_bound=low, flag_values=values
    )


def read_process_flags(
  values: flags.FlagValues, environment: Mapping[str, str] = os.environ
) -> ProcessFlags:
  """Reads which process this is; a launcher may complete the flags."""
  fields: Any = [values[name].value for name in ProcessFlags._fields]
  given = ProcessFlags(*fields)
  if given.coordinator is None:
    return _without_coordinator(given)
  host, _, port = given.coordinator.rpartition(":")
  if not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
    allowed = "HOST:PORT, the same for all processes, such as 10.0.0.1:1234"
    raise ConfigError(refusal("--coordinator", given.coordinator, allowed))
  given = _completed(given, environment)
  assert given.num_processes is not None
  assert given.process_id is not None
  if given.process_id >= given.num_processes:
    most, count = given.num_processes - 1, given.num_processes
    allowed = f"0 to {most}, each once, with --num_processes={count}"
    raise ConfigError(refusal("--process_id", given.process_id, allowed))
  return given


def _without_coordinator(given: ProcessFlags) -> ProcessFlags:
  alone = given.num_processes == 1 and given.process_id in (None, 0)
  if alone or (given.num_processes is None and given.process_id is None):
    return given
  raise ConfigError(
    "--coordinator is missing\n  allowed: --coordinator=HOST:PORT beside "
    "--num_processes and --process_id, or none of the three where the "
    "launcher says; --num_processes=1 alone for one process"
  )


def _completed(
  given: ProcessFlags, environment: Mapping[str, str]
) -> ProcessFlags:
  count, index = given.num_processes, given.process_id
  for size, rank in LAUNCHERS.values():
    if count is None and index is None and {size, rank} <= set(environment):
      count, index = int(environment[size]), int(environment[rank])
  for name, value in (("num_processes", count), ("process_id", index)):
    if value is None:
      raise ConfigError(
        f"--{name} is missing\n  allowed: --num_processes=N --process_id=I "
        "beside --coordinator, or neither under mpirun or srun"
      )
  return given._replace(num_processes=count, process_id=index)
