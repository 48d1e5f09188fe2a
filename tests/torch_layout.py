"""The two small networks of the reference traces, in PyTorch's layouts."""

import jax
import jax.numpy as jnp

RUNNING = ("running_mean", "running_var")


def mlp(params, model_state, images, *, train, key):
  x = images.reshape(len(images), -1)
  for name in ("fc1", "fc2"):
    x = jnp.tanh(x @ params[f"{name}.weight"].T + params[f"{name}.bias"])
  return x @ params["fc3.weight"].T + params["fc3.bias"], model_state


def convbn(params, model_state, images, *, train, key):
  state = dict(model_state)

  def block(name, x, stride):
    x = jax.lax.conv_general_dilated(
      x,
      params[f"conv{name}.weight"],
      (stride, stride),
      ((1, 1), (1, 1)),
      dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    n = x.size / x.shape[1]
    for key_, new in (
      ("running_mean", mean),
      ("running_var", var * n / (n - 1)),
    ):
      entry = f"bn{name}.{key_}"
      state[entry] = 0.9 * model_state[entry] + 0.1 * new
    shape = (1, -1, 1, 1)
    x = (x - mean.reshape(shape)) / jnp.sqrt(var.reshape(shape) + 1e-5)
    scale, bias = params[f"bn{name}.weight"], params[f"bn{name}.bias"]
    return jax.nn.relu(x * scale.reshape(shape) + bias.reshape(shape))

  x = block("2", block("1", images, 1), 2).mean((2, 3))
  return x @ params["fc.weight"].T + params["fc.bias"], state


def split_state(entries):
  """Separates a PyTorch state into parameters and running statistics.

  `num_batches_tracked` is left out: it counts both passes there, and nothing
  reads it.
  """
  entries = {k: v for k, v in entries.items() if "num_batches" not in k}
  running = {k: v for k, v in entries.items() if k.endswith(RUNNING)}
  return {k: v for k, v in entries.items() if k not in running}, running
