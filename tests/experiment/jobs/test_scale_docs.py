"""The commands of docs/scale.md for one machine run as printed."""

import json
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import ROOT

DOCS = (ROOT / "docs" / "scale.md").read_text()


@pytest.mark.long
def test_two_processes_run_as_printed(tmp_path: Path, data_dir: Path):
  [script] = [
    block
    for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    if "process_id=$i" in block
  ]
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
  shorter = (
    f"--config.epochs=1 --config.data.dir={data_dir} "
    "--config.model.hidden='(8,)'"
  )
  # A place, a port and a length of this test's own.
  for old, new in (
    ("runs/two", str(tmp_path / "run")),
    ("127.0.0.1:9911", f"127.0.0.1:{port}"),
    ("$i &", f"$i {shorter} &"),
  ):
    assert old in script
    script = script.replace(old, new)
  beside = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
  )
  found = subprocess.run(
    ["bash", "-c", script],
    cwd=ROOT,
    env=os.environ | {"PATH": beside},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert found.returncode == 0, found.stderr
  # Process 0 speaks for both.
  assert found.stdout.count("Finished 11 steps.") == 1, found.stderr
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert summary["steps"] == 11


def test_predicted_memory_has_the_images_of_three_batches():
  path = str(ROOT / "scripts" / "predict_scale.py")
  names = runpy.run_path(path)
  counts = names["Counts"](
    flops=1.0,
    activations=10.0,
    params=1000.0,
    opt_state=800.0,
    reduced=1000.0,
    copies=3,
  )
  predict, machine = names["predict"], names["Machine"]()
  found = predict(counts, machine, devices=8, batch=4096, micro=64)
  images = 512 * 224 * 224 * 3 * 4
  rest = 4 * 1000 + 64 * 10
  assert found.memory == rest + 3 * images + 800
  assert found.memory_sharded == rest + 3 * images + 100
