"""Configurations: what is allowed, the command line, and `config.json`."""

from forgetsam.experiment.config._check import check_config
from forgetsam.experiment.config._command_line import (
  Command,
  apply_overrides,
  load_config_file,
  parse_command_line,
)
from forgetsam.experiment.config._errors import ConfigError
from forgetsam.experiment.config._json import (
  config_from_dict,
  config_hash,
  config_to_dict,
  differing_keys,
)
from forgetsam.experiment.config._schema import SCHEMA

__all__ = [
  "SCHEMA",
  "Command",
  "ConfigError",
  "apply_overrides",
  "check_config",
  "config_from_dict",
  "config_hash",
  "config_to_dict",
  "differing_keys",
  "load_config_file",
  "parse_command_line",
]
