"""Choices among examples, on counts small enough to do by hand."""

import numpy as np

from forgetsam.data import _subsets


def test_largest_remainders():
  labels = np.repeat([0, 1, 2], [5, 3, 2])
  keys = np.arange(10, dtype=np.uint64)
  # Quotas 2, 1.2 and 0.8: the remainder goes to class 2.
  np.testing.assert_array_equal(
    _subsets.stratified(labels, 4, keys), [0, 1, 5, 8]
  )
  # Quotas 2.5, 1.5 and 1 tie between classes 0 and 1: the lower one gets it.
  np.testing.assert_array_equal(
    _subsets.stratified(labels, 5, keys), [0, 1, 2, 5, 8]
  )


def test_the_smallest_keys_are_taken():
  labels = np.array([0, 1, 0, 1, 0, 1])
  keys = np.array([9, 1, 2, 8, 5, 3], np.uint64)
  np.testing.assert_array_equal(
    _subsets.stratified(labels, 4, keys), [1, 2, 4, 5]
  )


def test_draws_are_fixed_and_differ_between_purposes():
  purposes = list(_subsets.Purpose)
  drawn = [_subsets.draws(5, seed=0, purpose=p) for p in purposes]
  assert len({tuple(numbers) for numbers in drawn}) == len(purposes)
  # A longer draw begins with a shorter one.
  longer = _subsets.draws(9, seed=0, purpose=purposes[0])
  np.testing.assert_array_equal(longer[:5], drawn[0])
  assert int(drawn[0][0]) == 11749869230777074271


def test_flipped_labels_by_hand():
  labels = np.array([0, 1, 2, 2], np.int32)
  example_keys = np.array([5, 1, 9, 2], np.uint64)
  label_keys = np.array([0, 0, 0, 3], np.uint64)
  # Examples 1 and 3 are next in line; they move on by 1 + 0 and 1 + 3 % 2.
  noisy = _subsets.flip_labels(labels, 0.5, 3, example_keys, label_keys)
  np.testing.assert_array_equal(noisy, [0, 2, 2, 1])
  np.testing.assert_array_equal(labels, [0, 1, 2, 2])
