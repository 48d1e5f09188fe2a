"""A process that is killed ends the other, which says where to go on."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import ROOT, tiny

from forgetsam import data


def start(command: list[str], port: int, index: int) -> subprocess.Popen:
  flags = os.environ.get("XLA_FLAGS", "")
  return subprocess.Popen(
    [
      *(sys.executable, "main.py", *command),
      f"--coordinator=127.0.0.1:{port}",
      *("--num_processes=2", f"--process_id={index}"),
    ],
    cwd=ROOT,
    env={
      **os.environ,
      "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4",
    },
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_the_other_ends_within_a_minute(
  killed: int, tmp_path: Path, data_dir: Path
):
  data.load("digits", data_dir=data_dir)
  workdir = tmp_path / "run"
  command = tiny(
    workdir,
    data_dir,
    *("--config.epochs=2000", "--config.checkpoint.every_steps=3"),
  )
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
  processes = [start(command, port, index) for index in (0, 1)]
  try:
    while not any(p.name.isdigit() for p in workdir.glob("checkpoints/*")):
      assert all(p.poll() is None for p in processes), "a process ended"
      time.sleep(0.2)
    processes[killed].kill()
    processes[killed].communicate()
    survivor = processes[1 - killed]
    _, said = survivor.communicate(timeout=60)
  finally:
    for process in processes:
      process.kill()
      process.wait()
  assert survivor.returncode == 1
  end = said.strip()
  assert f"Process {1 - killed} of 2 was " in end
  assert "another process of this run died" in end
  [step] = re.findall(r"same command goes on from checkpoint (\d+)\.$", end)
  assert (workdir / "checkpoints" / step).is_dir()
