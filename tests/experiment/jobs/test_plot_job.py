"""`--job=plot`, on folders as runs leave them."""

import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT

import main
from forgetsam.experiment import apply_variant, base_config
from forgetsam.experiment.config import config_to_dict
from forgetsam.experiment.jobs._curves import draw_curves, metrics_to_draw
from forgetsam.experiment.jobs._runs import find_runs, group_runs, read_run
from forgetsam.experiment.run import MetricsFile, write_json


def make(
  folder: Path, seed: int = 0, *, steps: int = 30, **changes: Any
) -> Path:
  """A run of SAM whose validation accuracy is its rho."""
  config = apply_variant(base_config(), "sam")
  config.seed = seed
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  folder.mkdir(parents=True)
  write_json(folder / "config.json", config_to_dict(config))
  file = MetricsFile(folder, 0)
  for step in range(10, steps + 1, 10):
    loss = (1 + seed) / step
    file.write(step, {"train/loss": loss, "train/perturbed_loss": 2 * loss})
    file.write(step, {"validation/accuracy": config.perturbation.rho})
    file.write(step, {"train/grad_norm": 1.0, "validation/count": 9.0})
  if steps:
    file.close()
  return folder


def plot(workdir: object, *extra: str) -> int:
  arguments = ["--job=plot", f"--workdir={workdir}", *extra]
  return main.run(arguments, time.monotonic())


def labels(*folders: Path) -> dict[str, int]:
  groups = group_runs([read_run(folder) for folder in folders])
  return {label: len(runs) for label, runs in groups.items()}


@pytest.mark.parametrize("steps", [30, 10])
def test_a_run_is_drawn_in_its_folder(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int
):
  folder = make(tmp_path / "mine", steps=steps)  # 10: a point for a curve
  assert plot(folder) == 0
  said = capsys.readouterr().out
  assert f"are in {folder / 'curves.png'}" in said
  assert "| mine |" in said
  assert (folder / "curves.png").stat().st_size > 5000


def test_runs_are_found_by_folder_pattern_and_list(tmp_path: Path):
  runs = [make(tmp_path / "a" / str(seed), seed) for seed in (9, 10)]
  (runs[0] / "checkpoints" / "5").mkdir(parents=True)
  other = make(tmp_path / "b, c")
  assert find_runs([str(tmp_path / "a")]) == runs  # 9 before 10
  assert find_runs([f"{tmp_path}/a/1*", f"{tmp_path}/a"]) == [runs[1], runs[0]]
  assert plot(f"{tmp_path}/a/*,{tmp_path}/a/9") == 0
  assert (tmp_path / "a" / "curves.png").exists()
  assert plot(other) == 0  # with a comma in its name
  assert (other / "curves.png").exists()


def test_seeds_share_a_line_and_repeated_runs_do_not(tmp_path: Path):
  of = {
    (rho, seed): make(
      tmp_path / f"r{rho}_seed{seed}", seed, perturbation__rho=rho
    )
    for rho in (0.1, 0.2)
    for seed in (0, 1)
  }
  assert labels(*of.values()) == {"rho=0.1": 2, "rho=0.2": 2}
  again = make(tmp_path / "again", perturbation__rho=0.1)
  assert labels(of[0.1, 0], again) == {"r0.1_seed0": 1, "again": 1}
  plain = make(
    tmp_path / "plain", perturbation__name="none", perturbation__rho=0.1
  )
  assert labels(of[0.1, 0], plain) == {"sam": 1, "none": 1}


def test_seeds_alone_are_named_by_their_folder(tmp_path: Path):
  folders = [make(tmp_path / "sam" / str(i), seed=i) for i in range(2)]
  assert labels(*folders) == {"sam": 2}


def test_configurations_that_differ_in_much_are_named_by_their_folders(
  tmp_path: Path,
):
  changes = {"epochs": 3, "batch_size": 64, "perturbation__rho": 0.4}
  first = [make(tmp_path / "sam" / str(seed), seed) for seed in range(3)]
  second = [make(tmp_path / f"wide_{s}", s, **changes) for s in range(2)]
  assert labels(*first, *second) == {"sam": 3, "wide": 2}


def test_curves_of_seeds_are_a_mean_with_its_error(tmp_path: Path):
  folders = [
    make(tmp_path / f"{rho}_{seed}", seed, perturbation__rho=rho)
    for rho in (0.1, 0.2)
    for seed in (0, 2, 4)
  ]
  groups = group_runs([read_run(folder) for folder in folders])
  names = metrics_to_draw(groups)
  assert names == ["train/loss", "train/perturbed_loss", "validation/accuracy"]
  axes = draw_curves(groups, names, list(groups)).axes
  assert [axis.get_title() for axis in axes] == names
  first, _ = axes[0].lines
  assert first.get_label() == "rho=0.1 (3 runs)"
  assert list(first.get_xdata()) == [10, 20, 30]
  assert list(first.get_ydata()) == pytest.approx([3 / 10, 3 / 20, 3 / 30])
  band = axes[0].collections[0].get_paths()[0].vertices
  assert band[:, 1].max() == pytest.approx(0.3 + 0.2 / 3**0.5)


def test_one_run_has_its_splits_side_by_side(tmp_path: Path):
  run = read_run(make(tmp_path / "run"))
  run.metrics["validation/loss"] = {10: 1.0, 20: 0.5}
  run.metrics["validation/ema/accuracy"] = {10: 0.1, 20: 0.2}
  groups = {"run": [run]}
  axes = draw_curves(groups, metrics_to_draw(groups), ["run"]).axes
  lines = [[line.get_label() for line in axis.lines] for axis in axes]
  assert lines == [
    ["train", "train, perturbed", "validation"],
    ["validation", "validation, ema"],
  ]
  colors = {line.get_label(): line.get_color() for line in axes[0].lines}
  assert axes[1].lines[0].get_color() == colors["validation"]


def test_what_some_run_logged_more_than_once_is_drawn(tmp_path: Path):
  run = read_run(make(tmp_path / "run"))
  begun = run._replace(metrics={"train/loss": {10: 1.0}, "kept": {10: 1.0}})
  assert "train/loss" in metrics_to_draw({"both": [run, begun]})
  kept = begun._replace(metrics={"kept": {10: 1.0}})
  assert metrics_to_draw({"kept": [kept]}) == ["kept"]


def test_long_labels_stay_within_the_picture(tmp_path: Path):
  run = read_run(make(tmp_path / "run"))
  groups = {f"{i}_" + "long_" * 10: [run] for i in range(4)}
  figure = draw_curves(groups, metrics_to_draw(groups), list(groups))
  figure.canvas.draw()
  legend = figure.legends[0].get_window_extent()
  assert 0 < legend.x0 < legend.x1 < figure.bbox.x1


def test_of_many_configurations_the_best_are_in_colour(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  for i in range(1, 11):
    make(tmp_path / str(i), perturbation__rho=i / 100)
  assert plot(tmp_path, "--metrics=validation/accuracy") == 0
  rows = capsys.readouterr().out.splitlines()[2:12]
  assert [row.split()[1] for row in rows] == [
    f"rho={i / 100}" for i in range(10, 0, -1)
  ]
  groups = group_runs(
    [read_run(folder) for folder in find_runs([str(tmp_path)])]
  )
  axis = draw_curves(groups, ["train/loss"], ["rho=0.1"]).axes[0]
  assert [line.get_label() for line in axis.lines] == ["9 others"] * 9 + [
    "rho=0.1"
  ]


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--workdir={}/none"], "none' is refused.*the folder of a run"),
    (["--workdir={}/runs/x*"], r"x\*' is refused.*a pattern"),
    (["--workdir={}/empty"], "empty' is refused.*has none yet"),
    (["--workdir={}/runs", "--metrics=test/f1"], "test/f1'.*train/loss"),
    (["--workdir={}/runs", "--output={}/file"], "--output=.*can be written"),
    (["--workdir={}/runs", "--config=a.py"], "--config='a.py' is refused"),
    (["--workdir={}/runs", "--config.seed=1"], "--config=.*is refused"),
    (
      ["--workdir={}/runs", "--job=evaluate", "--metrics=a"],
      "--metrics=.*plot",
    ),
  ],
)
def test_what_cannot_be_drawn_is_refused(
  flags: list[str],
  said: str,
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
):
  make(tmp_path / "runs" / "one")
  empty = make(tmp_path / "empty", steps=0)
  (empty / "metrics.csv").write_text("step,train/loss\n")
  (tmp_path / "file").touch()
  flags = [flag.format(tmp_path) for flag in flags]
  assert main.run(["--job=plot", *flags], time.monotonic()) == 2
  error = capsys.readouterr().err.replace("\n", " ")
  assert re.search(said, error), error


def test_a_picture_can_go_elsewhere(tmp_path: Path):
  make(tmp_path / "runs" / "one")
  make(tmp_path / "runs" / "two", steps=0)  # it has only begun
  assert plot(tmp_path / "runs", f"--output={tmp_path}/pictures") == 0
  assert (tmp_path / "pictures" / "curves.png").exists()
  assert not (tmp_path / "runs" / "curves.png").exists()


def test_the_commands_of_the_guide_run(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  page = (ROOT / "docs" / "looking.md").read_text().replace("\\\n", "")
  commands = re.findall(r"python main.py (--job=plot .*)", page)
  assert len(commands) == 3
  for name in ("sam/0", "sam/1", "obf/0"):
    folder = make(tmp_path / "runs" / "noisy" / name)
    rows = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(
      rows.replace("_norm", "").replace("train/grad", "validation/loss")
    )
  monkeypatch.chdir(tmp_path)
  for command in commands:
    assert main.run(shlex.split(command), time.monotonic()) == 0, command
  assert len(list(tmp_path.rglob("curves.png"))) == 3
