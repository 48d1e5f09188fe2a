"""Configurations: the table of keys, the command line, and `config.json`."""

from forgetsam.experiment.config._check import check_config
from forgetsam.experiment.config._command_line import (
  Command,
  apply_overrides,
  parse_command_line,
)
from forgetsam.experiment.config._components import (
  build_component,
  chosen_options,
  own_components,
  with_found_modules,
)
from forgetsam.experiment.config._config_files import (
  load_config_file,
  run_config_file,
  split_config,
)
from forgetsam.experiment.config._device_checks import mesh_problems
from forgetsam.experiment.config._errors import (
  ConfigError,
  cause,
  closest,
  path_of_flag,
  refusal,
)
from forgetsam.experiment.config._help import help_page
from forgetsam.experiment.config._json import (
  config_from_dict,
  config_hash,
  config_to_dict,
  differing_keys,
  leaves,
  typed_config,
  with_absent,
)
from forgetsam.experiment.config._keys import KEYS
from forgetsam.experiment.config._modules import (
  find_attribute,
  is_module_attribute,
)
from forgetsam.experiment.config._options import (
  OPTIONS,
  is_model_option,
  row_of,
)
from forgetsam.experiment.config._perturbing import (
  reads_clean,
  reads_previous,
)
from forgetsam.experiment.config._plot_flags import PlotFlags
from forgetsam.experiment.config._process_flags import LAUNCHERS, ProcessFlags
from forgetsam.experiment.config._recipes import (
  VARIANTS,
  apply_variant,
  base_config,
)
from forgetsam.experiment.config._rules import Key, Rule
from forgetsam.experiment.config._sweep_flags import SweepFlags

__all__ = [
  "KEYS",
  "LAUNCHERS",
  "OPTIONS",
  "VARIANTS",
  "Command",
  "ConfigError",
  "Key",
  "PlotFlags",
  "ProcessFlags",
  "Rule",
  "SweepFlags",
  "apply_overrides",
  "apply_variant",
  "base_config",
  "build_component",
  "cause",
  "check_config",
  "chosen_options",
  "closest",
  "config_from_dict",
  "config_hash",
  "config_to_dict",
  "differing_keys",
  "find_attribute",
  "help_page",
  "is_model_option",
  "is_module_attribute",
  "leaves",
  "load_config_file",
  "mesh_problems",
  "own_components",
  "parse_command_line",
  "path_of_flag",
  "reads_clean",
  "reads_previous",
  "refusal",
  "row_of",
  "run_config_file",
  "split_config",
  "typed_config",
  "with_absent",
  "with_found_modules",
]
