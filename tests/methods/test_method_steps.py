"""The training step of every method is the step of one's own loop."""

import jax
import numpy as np
import pytest
from peer_methods import PEERS, made
from peer_traces import Case, logits, step_of_own

import forgetsam as fs

MICRO_BATCHES = 2
# Other forms of one method, and what has such a test of its own.
LEFT_OUT = {
  *("sam_davda", "sam_samsung", "asam_davda", "asam_samsung", "msharp_sam"),
  *("gsam", "gsam_bv_fp", "gsam_adaptive", "wsam_coupled"),
  *("bsam", "lesam_adaptive", "unified_sam_invt"),
  *("samon_sam", "samon_asam_l2", "looksam", "fsam", "msam"),
  *("asam_layerwise_linf", "samon_asam_layer", "samon_asam_linf", "gnp"),
  *("gsam_bv_f_adaptive", "esam_elementwise", "wsam_decoupled_adaptive"),
}
# What docs/methods.md says of micro-batches: these are taken together.
FACTORED = {
  *("gsam_bv_f", "asam_layerwise", "vasso", "gnp_normalized"),
  *("msam_adamw", "stablesam", "layersam", "lesam", "unified_sam"),
}
READ_PREVIOUS = {"sampa"}


# One of each kind every day: a state, a rule, examples, an optimizer's part.
USUAL = {
  *("vasso", "gnp_normalized", "esam_official", "wsam_decoupled", "lookbehind"),
}
NAMES = [
  name if name in USUAL else pytest.param(name, marks=pytest.mark.long)
  for name in PEERS
  if name not in LEFT_OUT
]


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_and_states_are_averaged(name):
  with jax.enable_x64(True):
    case = Case(name)
    transform, options = made(PEERS[name](case))
    optimizer = options.get("optimizer", case.sgd())
    own, own_step = step_of_own(case, transform, optimizer, MICRO_BATCHES)
    step = fs.make_train_step(
      lambda params, state, x, *, train, key: (logits(params, x), state),
      loss=fs.softmax_cross_entropy(),
      optimizer=optimizer,
      perturb=transform,
      micro_batch_size=24 // MICRO_BATCHES,
      m_sharpness="factored" if name in FACTORED else "loop",
    )
    state = fs.create_train_state(case.params, {}, optimizer, transform)
    for t in (1, 2):
      batch, before = (
        dict(zip(("image", "label"), case.batch(i), strict=True))
        for i in (t, t - 1)
      )
      own = own_step(own, case.batch(t), case.batch(t - 1))
      if name in READ_PREVIOUS:
        batch["previous"] = before
      state, metrics = step(state, batch, jax.random.key(0))
      assert metrics["skipped"] == 0
      assert np.isfinite(metrics["perturbed_loss"])
    for actual, wanted in zip(
      jax.tree.leaves((state.params, state.perturb_state)),
      jax.tree.leaves(own[:2]),
      strict=True,
    ):
      if not jax.dtypes.issubdtype(actual.dtype, jax.dtypes.prng_key):
        np.testing.assert_allclose(actual, wanted, rtol=1e-8, atol=1e-10)
