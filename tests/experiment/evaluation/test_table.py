import pytest

from forgetsam.experiment.evaluation import format_table

RESULT = {
  "accuracy": 0.12345678,
  "top5_accuracy": 1.0,
  "loss": 12.34567,
  "ece": 0.051,
  "count": 50000,
}


def test_rows_in_the_order_of_the_results():
  small = {**RESULT, "accuracy": 0.9, "loss": 0.5, "ece": 0.0, "count": 7}
  table = format_table({"imagenet_v2": RESULT, "digits": small})
  assert table.splitlines() == [
    "| set         | top-1 (%) | top-5 (%) |    loss |    ECE |     n |",
    "| ----------- | --------: | --------: | ------: | -----: | ----: |",
    "| imagenet_v2 |     12.35 |    100.00 | 12.3457 | 0.0510 | 50000 |",
    "| digits      |     90.00 |    100.00 |  0.5000 | 0.0000 |     7 |",
  ]


def test_scores_without_an_accuracy_are_the_columns():
  table = format_table(
    {"test": {"loss": 0.5, "perplexity": 1.64872, "count": 9}}
  )
  assert table.splitlines()[::2] == [
    "| set  | loss | perplexity | count |",
    "| test |  0.5 |    1.64872 |     9 |",
  ]


def test_no_result_is_a_table_without_rows():
  assert len(format_table({}).splitlines()) == 2


def test_what_a_result_lacks_is_named():
  partial = {"accuracy": 0.5, "loss": 1.0}
  with pytest.raises(ValueError, match=r"'old'.* lacks top5_accuracy, ece"):
    format_table({"old": partial})
