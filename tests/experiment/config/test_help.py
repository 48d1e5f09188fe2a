"""The pages of help come from the flags, the jobs and the table of keys."""

import re
from pathlib import Path

import pytest

from forgetsam.experiment.config import KEYS, ConfigError, help_page

ROOT = Path(__file__).resolve().parents[3]
JOBS = {"train": "Train a network", "evaluate": "Score it"}


def page(*arguments: str) -> str:
  found = help_page(arguments, JOBS, "Runs things.")
  assert found is not None
  assert max(map(len, found.splitlines())) <= 80
  return found


def shown(text: str) -> dict[str, str]:
  """Keys and values; of free options, which have none, nothing."""
  keys = re.findall(r"^--config\.(\S+?)=(.*)$", text, re.MULTILINE)
  return {key: value for key, value in keys if value != "VALUE"}


def test_none_is_asked_for():
  assert help_page(["--workdir=x", "--config.seed=1"], JOBS, "") is None


@pytest.mark.parametrize("flag", ["-h", "--help", "-help"])
def test_the_overview_names_jobs_flags_and_groups(flag: str):
  text = page(flag)
  assert text.startswith("Runs things.")
  for name, about in JOBS.items():
    assert re.search(rf"{name} +{about}", text)
  assert re.search(r"--seeds +Seeds of each variant \(5\)", text)
  flags = re.findall(r"^  --(\w+) +\S", text, re.MULTILINE)
  assert {"config", "workdir", "job", "arms", "grid", "process_id"} <= {*flags}
  words = set(re.findall(r"\w+", text.partition("Keys,")[2]))
  assert {key.partition(".")[0] for key in KEYS} <= words
  assert not shown(text)


def test_a_groups_keys_have_defaults_rules_and_help():
  for arguments in (
    ("--help=perturbation",),
    ("--help", "perturbation"),
    ("--help=--config.perturbation",),
  ):
    text = page(*arguments)
    found = shown(text)
    group = [key for key in KEYS if key.startswith("perturbation.")]
    assert list(found) == group
    assert found["perturbation.rho"] == "0.05"
    unwrapped = " ".join(text.split())
    for key in group:
      assert f"{KEYS[key].help} ({KEYS[key].allowed})" in unwrapped
  assert "--config.model.options.NAME=VALUE" in page("--help=model")
  assert shown(page("--help=data.mean")) == {"data.mean": "(0.5,)"}
  assert shown(page("--help=init_from")) == {"init_from": "none"}


@pytest.mark.parametrize("colon", ["", ":", ":sam"])
def test_a_file_has_variants_and_values(colon: str):
  text = page(
    "--help", f"--config={ROOT}/configs/digits.py{colon}", "--config.seed=7"
  )
  assert "plain, sam, obf (FILE alone), random" in " ".join(text.split())
  found = shown(text)
  assert list(found) == list(KEYS)
  name = "loss" if colon == ":sam" else "output_bias_forgetting"
  assert found["ascent.name"] == name
  assert (found["seed"], found["epochs"]) == ("7", "60")


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (["--help=perturbaton"], "'perturbaton'.*closest key is perturbation"),
    (["--help=jobs"], "'jobs'.*groups are ascent, .*probe"),
    (["--help", "--wrkdir=x"], "wrkdir.*--workdir"),
    (["--help", "--config=nowhere.py"], "nowhere.py"),
  ],
)
def test_what_is_unknown_is_refused(arguments: list[str], named: str):
  with pytest.raises(ConfigError, match=f"(?s){named}"):
    help_page(arguments, JOBS, "")
