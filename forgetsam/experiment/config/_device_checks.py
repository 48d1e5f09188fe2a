"""Refuses sizes that do not divide: of the mesh, batches and micro-batches."""

from collections.abc import Iterator, Mapping
from typing import Any

from forgetsam.experiment.config._errors import refusal


def device_problems(
  key: str, leaves: dict[str, Any], num_devices: int
) -> Iterator[str]:
  """Refuses a number of examples that the devices do not divide."""
  if leaves[key] % num_devices:
    allowed = f"a multiple of the number of devices, {num_devices}"
    yield refusal(f"config.{key}", leaves[key], allowed)


def mesh_problems(sizes: Mapping[str, int], num_devices: int) -> Iterator[str]:
  """Refuses sizes of the mesh's axes, `config.mesh`, for so many devices."""
  left = num_devices
  for name, size in sizes.items():
    if left % size:
      allowed = f"a divisor of the number of devices, {num_devices}"
      if left != num_devices:
        allowed = (
          f"a divisor of {left}, the groups that config.mesh.fsdp="
          f"{sizes['fsdp']} makes of {num_devices} devices"
        )
      yield refusal(f"config.mesh.{name}", size, allowed)
      return
    left //= size


def batch_problems(leaves: dict[str, Any], num_devices: int) -> Iterator[str]:
  """Refuses sizes that the devices, or the groups of them, do not divide."""
  sizes = {name: leaves[f"mesh.{name}"] for name in ("fsdp", "model")}
  if problems := list(mesh_problems(sizes, num_devices)):
    yield from problems
    return
  shards, fsdp = num_devices // sizes["model"], sizes["fsdp"]
  if leaves["batch_size"] % shards:
    yield from device_problems("batch_size", leaves, shards)
    return
  groups, name = shards // fsdp, "group" if fsdp > 1 else "device"
  share, m = leaves["batch_size"] // groups, leaves["micro_batch_size"]
  if m is not None and share % m:
    yield refusal(
      "config.micro_batch_size",
      m,
      f"a divisor of a {name}'s share of the batch, {share} "
      f"(config.batch_size={leaves['batch_size']} over {groups} "
      f"{name}{'s' if groups > 1 else ''}), or none",
    )
  elif m is not None and m % fsdp:
    allowed = (
      f"a multiple of config.mesh.fsdp={fsdp}, the devices that share it, or "
      "none"
    )
    yield refusal("config.micro_batch_size", m, allowed)
