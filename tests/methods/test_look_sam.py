"""LookSAM against its algorithm by hand, on 1/2 w'Aw and in the train step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from meshes import data_mesh

import forgetsam as fs

A = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
W = np.array([1.0, -2.0, 0.5])
RHO, ALPHA = 0.7, 0.6


def tree(w):
  w = jnp.asarray(w, jnp.float32)
  return {"a": w[:1], "b": w[1:]}


def vector(params):
  return np.concatenate([params["a"], params["b"]])


def value_and_grad_fn(params):
  w = jnp.concatenate([params["a"], params["b"]])
  g = jnp.asarray(A, jnp.float32) @ w
  return 0.5 * jnp.sum(w * g), tree(g)


def grad_fn(params):
  return value_and_grad_fn(params)[1]


def ascent_fn(params):
  """Of another objective than the loss."""
  return jax.tree.map(jnp.tanh, params)


def by_hand(points, k, ascent=lambda w: A @ w, rho=lambda t: RHO):
  """Algorithm 1 of the paper: gradients, and the orthogonal part."""
  results, g_v = [], None
  for t, w in enumerate(points):
    g = A @ w
    if t % k == 0:
      g_a = ascent(w)
      g_s = A @ (w + rho(t) * g_a / np.linalg.norm(g_a))
      cosine = g_s @ g / np.linalg.norm(g_s) / np.linalg.norm(g)
      g_v = g_s - np.linalg.norm(g_s) * cosine * g / np.linalg.norm(g)
      results.append(g_s)
    else:
      ratio = np.linalg.norm(g) / np.linalg.norm(g_v)
      results.append(g + ALPHA * ratio * g_v)
  return np.array(results)


POINTS = [W, 0.5 * W[::-1], W + 1, -W, np.ones(3)]


def run(transform, points=POINTS, **functions):
  @jax.jit
  def update(w, state):
    ascent_grads = functions.get("ascent_fn", grad_fn)(tree(w))
    return transform.update(ascent_grads, state, tree(w), **functions)

  state = transform.init(tree(points[0]))
  grads, states = [], []
  for w in points:
    g, state = update(w, state)
    grads.append(vector(g))
    states.append(state)
  return np.array(grads), states


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_algorithm_by_hand(k):
  grads, _ = run(fs.look_sam(fs.sam(RHO), k, ALPHA), grad_fn=grad_fn)
  np.testing.assert_allclose(grads, by_hand(POINTS, k), rtol=1e-4)


def test_the_loss_as_its_own_ascent_is_not_taken_again():
  transform = fs.look_sam(fs.sam(RHO), 2, ALPHA)
  grads, _ = run(transform, grad_fn=grad_fn, ascent_fn=grad_fn)
  np.testing.assert_allclose(grads, by_hand(POINTS, 2), rtol=1e-4)


@pytest.mark.parametrize("by_function", [True, False])
def test_the_ascent_may_be_another_objective(by_function):
  transform = fs.look_sam(fs.sam(RHO), 2, ALPHA)

  @jax.jit
  def update(w, state):
    given = ascent_fn(tree(w))
    functions = {"ascent_fn": ascent_fn} if by_function else {}
    return transform.update(given, state, tree(w), grad_fn=grad_fn, **functions)

  state = transform.init(tree(W))
  for w, expected in zip(POINTS, by_hand(POINTS, 2, np.tanh), strict=True):
    g, state = update(w, state)
    np.testing.assert_allclose(vector(g), expected, rtol=1e-4)


def test_a_schedule_counts_all_steps():
  rho = lambda t: 0.1 * (1.0 + t)  # noqa: E731
  grads, _ = run(fs.look_sam(fs.sam(rho), 2, ALPHA), grad_fn=grad_fn)
  np.testing.assert_allclose(grads, by_hand(POINTS, 2, rho=rho), rtol=1e-4)


def test_the_state_says_where_the_gradient_was_taken():
  _, states = run(
    fs.look_sam(fs.random_perturbation(RHO, 0), 2, ALPHA),
    grad_fn=grad_fn,
    value_and_grad_fn=value_and_grad_fn,
  )
  norms = [float(state.perturbation_norm) for state in states]
  np.testing.assert_allclose(norms, [RHO, 0, RHO, 0, RHO], rtol=1e-5)
  losses = [float(state.perturbed_loss) for state in states]
  plain = [0.5 * w @ A @ w for w in POINTS]
  np.testing.assert_allclose(losses[1::2], plain[1::2], rtol=1e-5)
  assert np.abs(np.subtract(losses, plain)[::2]).min() > 1e-3
  assert isinstance(states[0], fs.PerturbedGradientState)
  assert states[-1].perturbation.count == 5


def test_a_memory_inside_waits():
  _, states = run(
    fs.look_sam(fs.friendly_sam(RHO, sigma=0.5), 2, ALPHA), grad_fn=grad_fn
  )
  means = [vector(state.perturbation.perturbation[0].mean) for state in states]
  np.testing.assert_allclose(means[1], A @ POINTS[0], rtol=1e-5)
  np.testing.assert_allclose(
    means[3], 0.9 * A @ POINTS[0] + 0.1 * A @ POINTS[2], rtol=1e-5
  )


def test_nothing_orthogonal_leaves_the_plain_gradient():
  """On 1/2 ||w||^2, SAM's gradient is along the plain one."""
  transform = fs.look_sam(fs.sam(RHO), 2, ALPHA)
  state, params = transform.init(tree([2.0, 0, 0])), tree([2.0, 0, 0])

  @jax.jit
  def update(state):
    return transform.update(params, state, params, grad_fn=lambda p: p)

  for expected in (2 + RHO, 2):
    g, state = update(state)
    np.testing.assert_allclose(vector(g), [expected, 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
  ("perturbation", "own_ascent", "passes"),
  [
    (fs.sam(RHO), False, [2, 1, 1, 2, 1]),
    (fs.sam(RHO), True, [3, 1, 1, 3, 1]),
    (fs.multi_step(fs.sam(RHO), 3), True, [5, 1, 1, 5, 1]),
  ],
)
def test_passes_are_counted(perturbation, own_ascent, passes):
  transform = fs.look_sam(perturbation, 3, ALPHA)
  calls = []

  def counted(params):
    def gradient(w):
      calls.append(1)
      return A.astype(np.float32) @ w

    w = jnp.concatenate([params["a"], params["b"]])
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    return tree(jax.pure_callback(gradient, shape, w))

  @jax.jit
  def update(state):
    other = (lambda p: counted(p)) if own_ascent else counted
    return transform.update(
      tree(W), state, tree(W), grad_fn=counted, ascent_fn=other
    )

  state, seen = transform.init(tree(W)), []
  for _ in passes:
    calls.clear()
    _, state = jax.block_until_ready(update(state))
    seen.append(len(calls))
  assert seen == passes


def test_first_in_a_chain():
  optimizer = optax.chain(
    fs.look_sam(fs.sam(RHO), 2, ALPHA), optax.sgd(0.1, momentum=0.5)
  )

  @jax.jit
  def update(params, state):
    updates, state = optimizer.update(
      grad_fn(params), state, params, grad_fn=grad_fn
    )
    return optax.apply_updates(params, updates), state

  params = tree(W)
  state, w, trace, points = optimizer.init(params), W, 0.0, []
  for _ in range(4):
    params, state = update(params, state)
    points.append(w)
    trace = 0.5 * trace + by_hand(points, 2)[-1]
    w = w - 0.1 * trace
    np.testing.assert_allclose(vector(params), w, rtol=1e-4)


WIDTH, SIZE = 128, 512
LOSS = fs.softmax_cross_entropy()


def test_the_clean_pass_is_the_plain_gradient():
  """The dearer branch is SAM: no pass is taken twice."""

  def forward(params, model_state, images, *, train, key):
    return jnp.tanh(images @ params["hidden"]) @ params["head"], model_state

  params = {"hidden": jnp.ones((WIDTH, WIDTH)), "head": jnp.ones((WIDTH, 4))}
  batch = {"image": jnp.ones((SIZE, WIDTH)), "label": jnp.arange(SIZE) % 4}
  optimizer = optax.sgd(0.1)
  perturb = fs.look_sam(fs.sam(RHO), 5, ALPHA)
  step = fs.make_train_step(
    forward, loss=LOSS, optimizer=optimizer, perturb=perturb
  )
  state = fs.create_train_state(params, {}, optimizer, perturb)
  compiled = step.lower(state, batch, jax.random.key(0)).compile()
  matmul = 2 * SIZE * WIDTH * WIDTH
  flops = compiled.cost_analysis()["flops"]
  assert flops == pytest.approx(4 * matmul, rel=0.1)


IMAGES = jax.random.normal(jax.random.key(0), (16, 3))
LABELS = jnp.arange(16) % 2
KERNEL = jax.random.normal(jax.random.key(1), (3, 2))


@pytest.mark.parametrize(("devices", "unrolled"), [(2, False), (8, True)])
def test_micro_batches_share_the_mean_flat_part(devices, unrolled, monkeypatch):
  if not unrolled:
    monkeypatch.setattr("forgetsam.training._micro_batches.MOST_UNROLLED", 1)

  def forward(params, model_state, images, *, train, key):
    return images @ params["kernel"], model_state

  mesh = data_mesh(devices)
  optimizer, perturb = optax.sgd(0.5), fs.look_sam(fs.sam(RHO), 2, ALPHA)
  step = fs.make_train_step(
    forward,
    loss=LOSS,
    optimizer=optimizer,
    perturb=perturb,
    micro_batch_size=2,
    mesh=mesh,
  )
  state = fs.create_train_state(
    {"kernel": KERNEL}, {}, optimizer, perturb, mesh
  )
  w, flat = KERNEL, None
  for t in range(3):
    state, metrics = step(
      state, {"image": IMAGES, "label": LABELS}, jax.random.key(0)
    )
    grads, flats = [], []
    for i in range(8):
      x, y = IMAGES[2 * i : 2 * i + 2], LABELS[2 * i : 2 * i + 2]
      gradient = jax.grad(lambda w, x=x, y=y: LOSS(x @ w, y))
      g = gradient(w)
      length = jnp.linalg.norm(g)
      if t % 2 == 0:
        g_s = gradient(w + RHO * g / length)
        grads.append(g_s)
        flats.append(g_s - jnp.sum(g_s * g) * g / length**2)
      else:
        grads.append(g + ALPHA * length * flat / jnp.linalg.norm(flat))
    flat = sum(flats) / 8 if flats else flat
    w = w - 0.5 * sum(grads) / 8
    np.testing.assert_allclose(state.params["kernel"], w, rtol=2e-4, atol=1e-6)
    assert metrics["skipped"] == 0
    expected = RHO if t % 2 == 0 else 0
    np.testing.assert_allclose(
      metrics["perturbation_norm"], expected, rtol=1e-5
    )


def test_low_precision_keeps_its_dtype():
  params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), tree(W))
  transform = fs.look_sam(fs.sam(RHO), 2, ALPHA)
  state = transform.init(params)
  for _ in range(2):
    g, new = transform.update(params, state, params, grad_fn=lambda p: p)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(g))
    assert jax.tree.map(jnp.result_type, new) == jax.tree.map(
      jnp.result_type, state
    )
    state = new


def test_what_is_missing_or_impossible_is_named():
  transform = fs.look_sam(fs.sam(RHO), 2, ALPHA)
  params = tree(W)
  state = transform.init(params)
  with pytest.raises(ValueError, match="look_sam needs params"):
    transform.update(params, state, grad_fn=grad_fn)
  with pytest.raises(ValueError, match="look_sam needs grad_fn"):
    transform.update(params, state, params)
  with pytest.raises(ValueError, match="k=0 must be an integer"):
    fs.look_sam(fs.sam(RHO), 0, ALPHA)
  with pytest.raises(ValueError, match="alpha=nan must be finite"):
    fs.look_sam(fs.sam(RHO), 2, float("nan"))
  with pytest.raises(ValueError, match=r"optax\.masked"):
    optax.masked(transform, {"a": True, "b": False}).init(params)
  with pytest.raises(ValueError, match="optimizer contains a perturbed_grad"):
    fs.create_train_state(params, {}, optax.chain(transform, optax.sgd(0.1)))


@pytest.mark.parametrize(
  "perturbation",
  [fs.sam(0.0), fs.active_between(fs.sam(0.1), 100)],
  ids=["rho = 0", "idle"],
)
def test_without_an_offset_all_steps_are_plain(perturbation):
  """Rounding between the two passes is no flat part."""
  rng = np.random.default_rng(0)
  a = jnp.asarray(rng.normal(size=(50, 50)), jnp.float32)
  grad_fn = jax.jit(jax.grad(lambda w: 0.5 * jnp.sum((a @ w) ** 2)))
  again = jax.jit(lambda w: a.T @ (a @ w))  # the same, rounded otherwise
  transform = fs.look_sam(perturbation, k=2, alpha=0.7)
  w = jnp.asarray(rng.normal(size=50), jnp.float32)
  state = transform.init(w)
  for _ in range(4):
    got, state = transform.update(
      grad_fn(w), state, w, grad_fn=grad_fn, ascent_fn=again
    )
    np.testing.assert_allclose(got, grad_fn(w), rtol=1e-4, atol=1e-3)
    w = w - 1e-3 * got
