"""A configuration that notes which of its leaves are read."""

from ml_collections import config_dict


class Recorder(config_dict.ConfigDict):
  """Reads like the configuration; adds each leaf's key to a set."""

  def __init__(self, values: config_dict.ConfigDict, seen: set, prefix: str):
    super().__init__()
    for key, value in values.items():
      if isinstance(value, config_dict.ConfigDict):
        value = Recorder(value, seen, f"{prefix}{key}.")
      object.__setattr__(self, f"_value_{key}", value)
    object.__setattr__(self, "_names", list(values))
    object.__setattr__(self, "_seen", seen)
    object.__setattr__(self, "_prefix", prefix)

  def __getattribute__(self, name: str):
    try:
      value = object.__getattribute__(self, f"_value_{name}")
    except AttributeError:
      return object.__getattribute__(self, name)
    self._seen.add(self._prefix + name)
    return value

  def __getitem__(self, name: str):
    if name not in self._names:
      raise KeyError(name)
    return getattr(self, name)

  def items(self):
    return [(name, getattr(self, name)) for name in self._names]
