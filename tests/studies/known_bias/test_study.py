"""The choice of rho, the settings, and the scores of a network."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from forgetsam import data, models
from forgetsam.data.digits import split_positions
from forgetsam.experiment.config import check_config, load_config_file
from forgetsam.experiment.sweep import Mean
from forgetsam.studies import known_bias as kb
from forgetsam.studies.known_bias import __main__ as program

pytestmark = pytest.mark.slow

FILE = str(Path(__file__).parents[3] / "configs" / "biased_fashion_2k.py")


@pytest.mark.parametrize(
  ("means", "chosen"),
  [
    ((0.970, 0.971, 0.960, 0.900), 0.2),  # the best, and nothing as good above
    ((0.970, 0.9705, 0.9690, 0.900), 0.4),  # within the best's own error
    ((0.970, 0.969, 0.969, 0.968), 0.8),  # error 0.002, at the edge
    ((0.970, None, 0.9695, None), 0.4),  # diverged radii are out
  ],
)
def test_the_largest_within_one_standard_error(means, chosen):
  scores = [m and Mean(m, 0.002) for m in means]
  assert kb.choose_rho([0.1, 0.2, 0.4, 0.8], scores) == chosen


def test_the_error_is_that_of_the_best():
  scores = [Mean(0.97, 0.001), Mean(0.96, 0.02)]
  assert kb.choose_rho([0.1, 0.2], scores) == 0.1
  assert kb.choose_rho([0.1], [Mean(0.9, None)]) == 0.1
  with pytest.raises(ValueError, match=r"rhos=\[0.1\].*smaller"):
    kb.choose_rho([0.1], [None])


def test_conditions_are_what_the_protocol_says(monkeypatch):
  monkeypatch.setattr("forgetsam.data.check_available", lambda *_: None)
  curve = kb.curve_conditions(0.05)
  assert len({(*c.family, c.rho) for c in curve}) == len(curve) == 32
  seen = {}
  for condition in [*kb.plain_conditions(), *curve]:
    config = condition.config(FILE, 3, ["--config.epochs=2"])
    check_config(config, 1)
    assert (config.seed, config.epochs) == (3, 2)
    assert config.micro_batch_size == condition.micro_batch_size
    assert config.optimizer.weight_decay == condition.weight_decay
    if condition.method != "plain":
      assert config.perturbation.rho == condition.rho
    seen[condition.method] = (
      config.perturbation.name,
      config.ascent.name,
      config.ascent.gamma,
    )
  assert seen == {
    "plain": ("none", "loss", 1.0),
    "sam": ("sam", "loss", 1.0),
    "obf_gamma0": ("sam", "output_bias_forgetting", 0.0),
    "obf_gamma1": ("sam", "output_bias_forgetting", 1.0),
    "random": ("random", "loss", 1.0),
  }


@pytest.fixture(scope="module")
def digits_config(tmp_path_factory):
  config = load_config_file(f"{FILE}:plain")
  config.data.name, config.model.hidden = "biased_digits", (8,)
  config.data.dir = str(tmp_path_factory.mktemp("biased"))
  return config


def test_scores_of_a_network(digits_config):
  scorer = kb.Scorer(digits_config, num_pairs=50)
  module = models.create("mlp", num_classes=10, hidden=(8,))
  params, _ = models.initialise(module, jax.random.key(0), (8, 8, 1))
  scores = scorer.score(params)

  def normal(images):
    return (images / 255 - 0.286) / 0.353

  for name in kb.SPLITS:
    split = data.load_split(
      "biased_digits", name, data_dir=digits_config.data.dir
    )
    logits = module.apply({"params": params}, normal(split.images), train=False)
    expected = float(np.mean(np.argmax(logits, 1) == split.labels))
    assert scores[f"{name}/accuracy"] == pytest.approx(expected, abs=0.004)
  assert scores["influence/ratio"] == pytest.approx(
    scores["influence/patch"] / scores["influence/content"]
  )
  # The pairs are made of the real test digits, the first ones.
  digits = load_digits()
  first = digits.images[split_positions(digits.target)["test"][:50]]
  content = np.floor(first * 255 / 16 + 0.5)
  differs = np.asarray(scorer.pairs.images)[..., 0] != content
  assert np.all(differs.sum(axis=(1, 2)) <= 1)


def test_a_network_that_reads_the_patch_alone(digits_config, monkeypatch):
  from forgetsam.data import biased

  top, left = biased.corners((8, 8, 1), 1, 10).T
  monkeypatch.setattr(
    models,
    "forward",
    lambda module: lambda p, s, x, **_: (x[:, top, left, 0] * 1.0, s),
  )
  scores = kb.Scorer(digits_config, num_pairs=360).score({})
  # Some digits are white at another place, where they tie with the patch.
  assert scores["test_agree/accuracy"] > 0.9
  assert scores["test_conflict/accuracy"] < 0.05
  assert scores["influence/ratio"] > 1


def test_sets_without_a_known_bias_are_refused(digits_config):
  config = digits_config.copy_and_resolve_references()
  config.data.name = "digits"
  with pytest.raises(ValueError, match="'digits' has no known bias"):
    kb.Scorer(config)


@pytest.mark.parametrize(
  ("arguments", "named", "remedy"),
  [
    (["train", "--workdir=~/w"], "runs.jsonl is refused", "without it"),
    (["train", "--workdir=s3://b"], "--workdir='s3://b'", "local path"),
    (["report", "~/w", "gs://b"], "DOCS='gs://b'", "local path"),
    (["report", "~/w", "/proc/docs"], "DOCS=/proc/docs", "written to"),
  ],
)
def test_its_command_ends_in_a_sentence(
  arguments: list[str],
  named: str,
  remedy: str,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "w").mkdir()
  (tmp_path / "w" / "runs.jsonl").write_text('{"method": "pla')
  monkeypatch.setattr(sys, "argv", ["known_bias", *arguments])
  assert program.main() == 2
  said = capsys.readouterr().err
  assert named in said
  assert remedy in said
