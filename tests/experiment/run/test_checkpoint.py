"""Checkpoints restore every bit, keep the right ones, and notice damage."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs
from forgetsam.experiment.run import (
  CheckpointError,
  Checkpoints,
  leaf_checksums,
)

# Random numbers do not compress: most bytes of a checkpoint are theirs.
NOISE = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def make_state(step: int = 0, value: float = 1.0) -> fs.TrainState:
  """A state with bfloat16, typed keys, named tuples and empty nodes."""
  params = {
    "a": value * jnp.asarray(NOISE),
    "b": jnp.full(5, value, jnp.bfloat16),
  }
  perturb = fs.perturbed_gradient(fs.random_perturbation(0.1, seed=3))
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  state = fs.create_train_state(
    params, {"batch_stats": {"mean": jnp.arange(3.0)}}, optimizer, perturb
  )

  def advance(x: jax.Array) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.fold_in(x, step)
    return x + jnp.asarray(step, x.dtype)

  return state.replace(
    step=jnp.asarray(step, jnp.int32),
    opt_state=jax.tree.map(advance, state.opt_state),
    perturb_state=jax.tree.map(advance, state.perturb_state),
  )


def damage(folder: Path) -> None:
  """Flips one bit in the largest file of a checkpoint's variables."""
  files = [p for p in (folder / "variables").rglob("*") if p.is_file()]
  file = max(files, key=lambda p: p.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path):
  state = make_state(7, value=1 / 3)
  record = {"wall_seconds": 0.1 + 0.2, "means": {"sums": {}, "count": 0}}
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(state, record)
  with Checkpoints(tmp_path / "c") as checkpoints:
    found = checkpoints.restore_latest(make_state())
  assert found is not None
  restored, read = found
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  assert leaf_checksums(restored) == leaf_checksums(state)
  assert read["wall_seconds"] == 0.1 + 0.2
  key = restored.perturb_state
  for new, old in zip(
    jax.tree.leaves(key), jax.tree.leaves(state.perturb_state), strict=True
  ):
    assert new.dtype == old.dtype


def test_a_restored_state_is_placed_as_the_target_is(tmp_path: Path):
  mesh = data_mesh()
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(make_state(1), {})
    checkpoints.wait()
    target = jax.device_put(make_state(), whole)
    found = checkpoints.restore_latest(target)
  assert found is not None
  assert all(x.sharding == whole for x in jax.tree.leaves(found[0]))


def test_saving_copies_what_the_next_step_donates(tmp_path: Path):
  state = make_state(1, value=2.0)
  expected = leaf_checksums(state)
  overwrite = jax.jit(
    lambda s: jax.tree.map(lambda x: x * 0 + 5, s), donate_argnums=0
  )
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(state, {})
    overwrite(state.params)
    checkpoints.wait()
    found = checkpoints.restore_latest(make_state())
  assert found is not None
  assert leaf_checksums(found[0]) == expected


def test_nothing_saved_is_nothing_restored(tmp_path: Path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.restore_latest(make_state()) is None
    assert checkpoints.best_steps() == []


@pytest.mark.parametrize(("keep", "kept"), [(1, [2, 5]), (2, [2, 4, 5])])
def test_the_latest_and_the_best_are_kept(
  keep: int, kept: list[int], tmp_path: Path
):
  ranks = {1: (0.5, -1.0), 2: (0.9, -0.4), 3: (0.9, -0.5), 5: (0.9, -0.4)}
  with Checkpoints(tmp_path / "c", keep) as checkpoints:
    for step in range(1, 6):
      checkpoints.save(make_state(step), {}, ranks.get(step))
    checkpoints.wait()
    assert checkpoints.steps() == kept
    assert checkpoints.best_steps() == [2, 5]
  with Checkpoints(tmp_path / "c", keep) as checkpoints:  # read from the files
    assert checkpoints.best_steps() == [2, 5]


def test_of_equals_the_earlier_is_better(tmp_path: Path):
  with Checkpoints(tmp_path / "c", keep=4) as checkpoints:
    for step, rank in [(1, (1.0,)), (2, (2.0,)), (3, (1.0,)), (4, None)]:
      checkpoints.save(make_state(step), {}, rank)
    checkpoints.wait()
    assert checkpoints.best_steps() == [2, 1, 3]


def test_a_step_is_never_skipped_silently(tmp_path: Path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(make_state(1), {})
    checkpoints.wait()
    with pytest.raises(Exception, match="already exists"):
      checkpoints.save(make_state(1, value=2.0), {})


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_damaged_newest_checkpoint_is_named_and_replaced(
  how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
  with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
    checkpoints.save(make_state(1, value=1.0), {"n": 1})
    checkpoints.save(make_state(2, value=2.0), {"n": 2})
  newest = tmp_path / "c" / "2"
  if how == "flip":
    damage(newest)
  else:
    for file in newest.rglob("*"):
      if file.is_file() and "variables" in str(file):
        file.unlink() if how == "delete" else file.write_bytes(b"")
  with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
    found = checkpoints.restore_latest(make_state())
    assert found is not None
    state, record = found
    assert int(state.step) == record["n"] == 1
    assert np.all(state.params["a"] == NOISE)
    assert str(newest) in caplog.text
    # The run saves the same step again, under the same name.
    checkpoints.save(make_state(2, value=3.0), {"n": 3})
    checkpoints.wait()
    found = checkpoints.restore_latest(make_state())
    assert found is not None
    assert found[1]["n"] == 3
  assert (tmp_path / "damaged" / "2").is_dir()


def test_all_damaged_is_an_error_and_moves_nothing(tmp_path: Path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(make_state(1), {})
  damage(tmp_path / "c" / "1")
  with (
    Checkpoints(tmp_path / "c") as checkpoints,
    pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"),
  ):
    checkpoints.restore_latest(make_state())
  assert (tmp_path / "c" / "1").is_dir()


def test_variables_need_no_target_and_pass_over_damage(tmp_path: Path):
  with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
    checkpoints.save(make_state(1, value=1.0), {}, (0.5,))
    checkpoints.save(make_state(2, value=2.0), {}, (0.6,))
  damage(tmp_path / "c" / "2")
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    found = checkpoints.variables([2, 1])
    assert found.step == 1
    assert found.params["b"].dtype == jnp.bfloat16
    assert np.all(found.params["a"] == NOISE)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
      checkpoints.variables([])


def test_a_link_without_brackets_leads_to_a_folder_with_them(tmp_path: Path):
  (tmp_path / "br[1]").mkdir()
  (tmp_path / "link").symlink_to(tmp_path / "br[1]")
  with pytest.raises(CheckpointError, match=r"br\[1\].* none of "):
    Checkpoints(tmp_path / "br[1]" / "c")
  with Checkpoints(tmp_path / "link" / "c") as checkpoints:
    checkpoints.save(make_state(1), {})
  # Brackets do no harm where nothing is written.
  with Checkpoints(tmp_path / "br[1]" / "c", read_only=True) as checkpoints:
    assert checkpoints.variables([1]).step == 1


def test_what_is_lost_without_an_error_is_noticed(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  module = "forgetsam.experiment.run._checkpoint"
  # orbax writes no manifest there, and says nothing.
  monkeypatch.setattr(f"{module}.storage_problem", lambda *_, **__: None)
  with Checkpoints(tmp_path / "br[1]") as checkpoints:
    checkpoints.save(make_state(1), {})
    with pytest.raises(CheckpointError, match=r"checkpoint 1 (.|\n)*command"):
      checkpoints.wait()


def test_nothing_is_deleted_before_its_successor_was_read(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  def lose(*_: object) -> None:
    raise ValueError("lost")

  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(make_state(1), {})
    checkpoints.wait()
    with monkeypatch.context() as patch:
      patch.setattr("forgetsam.experiment.run._checkpoint.restore", lose)
      checkpoints.save(make_state(2), {})
      with pytest.raises(CheckpointError, match=r"2 .*: lost\n.*stay: \[1\]"):
        checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(make_state(3), {})
    checkpoints.wait()
    assert checkpoints.steps() == [3]


def test_a_loop_notices_between_its_steps(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  def lose(*_: object) -> None:
    raise ValueError("lost")

  monkeypatch.setattr("forgetsam.experiment.run._checkpoint.restore", lose)

  def train(checkpoints: Checkpoints) -> None:
    checkpoints.save(make_state(1), {})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
      checkpoints.check()

  with (
    Checkpoints(tmp_path / "c") as checkpoints,
    pytest.raises(CheckpointError, match="lost"),
  ):
    train(checkpoints)
