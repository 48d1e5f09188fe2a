"""The time left of measuring jobs, and what they print and draw."""

import itertools
from pathlib import Path

import pytest

from forgetsam.experiment.jobs._progress import Progress
from forgetsam.experiment.jobs._shown import Panel, draw_panels, report


class Clock:
  """Stands still until it is told."""

  now = 0.0

  def __call__(self) -> float:
    return self.now


def test_compilation_is_no_part_of_what_is_left():
  clock = Clock()
  plan = {"value": 100, "product": 50}
  seconds = {"value": 0.1, "product": 1.0}
  lefts = []
  with Progress("measuring", plan, {"product": 6.0}, clock) as progress:
    truth = sum(plan[kind] * seconds[kind] for kind in plan)
    for kind, i in itertools.chain(
      *[[(kind, i) for i in range(plan[kind])] for kind in plan]
    ):
      clock.now += seconds[kind] + 30.0 * (i == 0)  # each kind compiles
      truth -= seconds[kind]
      progress.done(kind)
      if i and truth > 1:
        lefts.append(progress.seconds_left() / truth)
    assert progress.fraction() == 1.0
    assert progress.seconds_left() == 0.0
  assert 0.5 < min(lefts) < max(lefts) < 2.0


def test_what_happens_between_two_pieces_is_no_part_of_the_others():
  clock = Clock()
  with Progress("measuring", {"value": 1000, "rare": 1}, {}, clock) as progress:
    for seconds in (20.0, 0.01, 5.0, 0.01, 0.01):
      clock.now += seconds
      progress.done("value")
    assert progress.seconds_left() == pytest.approx(9.96)


def test_lines_come_every_ten_seconds(caplog: pytest.LogCaptureFixture):
  clock = Clock()
  with caplog.at_level("INFO"):
    with Progress("measuring", {"a": 10}, {}, clock) as progress:
      for _ in range(10):
        clock.now += 4.0
        progress.done("a")
  lines = [record.getMessage() for record in caplog.records]
  assert lines == [
    " 12.0 s  measuring, 30%, 00:28 left ...",
    " 24.0 s  measuring, 60%, 00:16 left ...",
    " 36.0 s  measuring, 90%, 00:04 left ...",
  ]


PANELS = [
  Panel(
    "forgotten (nats)",
    ("training", "test"),
    {"SAM": ("sam/train", "sam/test"), "OBF": ("obf/train", "obf/test")},
  ),
  Panel("one column", (), {"test": ("sam/test",), "none": ("none",)}),
  Panel("not measured", (), {"nothing": ("nothing",)}),
]


def results(*steps: int) -> dict[str, float | int | None]:
  found: dict[str, float | int | None] = {}
  for step in steps:
    found |= {
      f"step_{step}/step": step,
      f"step_{step}/sam/train": 0.1 * step,
      f"step_{step}/sam/train/standard_error": 0.01,
      f"step_{step}/sam/test": 2.0,
      f"step_{step}/sam/test/error": 0.5,
      f"step_{step}/obf/test": None,
    }
  return found


def test_a_table_has_words_values_and_errors(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
  report(PANELS, results(5, 9), tmp_path / "found.json")
  said = capsys.readouterr().out
  assert "step_9, step 9" in said
  rows = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in said.splitlines()
    if line.startswith("|")
  ]
  assert rows[0] == ["forgotten (nats)", "training", "test"]
  assert rows[2:4] == [
    ["SAM", "0.9 ± 0.01", "2 ± 0.5"],
    ["OBF", "", "not finite"],
  ]
  assert [rows[4], *rows[6:]] == [["one column", ""], ["test", "2 ± 0.5"]]
  assert "1 more" in said
  for name in ("found.json", "found.png"):
    assert str(tmp_path / name) in said
    assert (tmp_path / name).stat().st_size > 100


def test_one_checkpoint_is_drawn_as_dots_and_several_along_their_steps():
  (dots,) = draw_panels(PANELS[:1], results(5)).axes
  assert [t.get_text() for t in dots.get_yticklabels()] == ["SAM", "OBF"]
  assert next(iter(dots.containers[1].lines[0].get_xdata())) == 2.0
  (lines,) = draw_panels(PANELS[:1], results(2, 5, 9)).axes
  first = lines.containers[0].lines[0]
  assert list(first.get_xdata()) == [2, 5, 9]
  assert list(first.get_ydata()) == pytest.approx([0.2, 0.5, 0.9])
  _, names = lines.get_legend_handles_labels()
  assert names == ["SAM, training", "SAM, test", "OBF, training", "OBF, test"]
