"""Configurations: what is allowed, the command line, and `config.json`."""

from forgetsam.experiment.config._check import check_config
from forgetsam.experiment.config._command_line import (
  Command,
  apply_overrides,
  load_config_file,
  parse_command_line,
)
from forgetsam.experiment.config._errors import ConfigError, closest, refusal
from forgetsam.experiment.config._json import (
  config_from_dict,
  config_hash,
  config_to_dict,
  differing_keys,
)
from forgetsam.experiment.config._process_flags import ProcessFlags
from forgetsam.experiment.config._schema import (
  SCHEMA,
  Rule,
  is_model_option,
  leaves,
)
from forgetsam.experiment.config._sweep_flags import SweepFlags

__all__ = [
  "SCHEMA",
  "Command",
  "ConfigError",
  "ProcessFlags",
  "Rule",
  "SweepFlags",
  "apply_overrides",
  "check_config",
  "closest",
  "config_from_dict",
  "config_hash",
  "config_to_dict",
  "differing_keys",
  "is_model_option",
  "leaves",
  "load_config_file",
  "parse_command_line",
  "refusal",
]
