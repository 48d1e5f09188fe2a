"""The command line of a run that takes a second."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tiny(
  workdir: Path, data_dir: Path, *extra: str, variant: str = "obf"
) -> list[str]:
  """The arguments of a run of two epochs of five steps."""
  return [
    f"--config={ROOT}/configs/digits.py:{variant}",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    "--config.data.train_examples=320",
    "--config.batch_size=64",
    "--config.micro_batch_size=8",
    "--config.evaluation.batch_size=64",
    "--config.evaluation.every_epochs=1",
    "--config.epochs=2",
    "--config.schedule.warmup_epochs=0",
    "--config.model.hidden=(8,)",
    "--config.log.every_steps=4",
    *extra,
  ]
