"""Random crops against the loop that torchvision and timm describe."""

import math

import numpy as np
import pytest

from forgetsam import data
from forgetsam.data import import_tensorflow
from forgetsam.data.streaming import _crops


def uniform(count):
  rng = np.random.RandomState(0)
  return rng.random_sample((count, _crops.NUM_DRAWS)).astype(np.float32)


def boxes(crop, height, width, draws):
  """[count, 5]: top, left, height, width, flip."""
  tf = import_tensorflow()

  def one(row):
    box, flip = _crops.random_box(
      crop, tf.constant(height), tf.constant(width), row
    )
    return tf.stack([*box, tf.cast(flip, tf.int32)])

  rows = tf.data.Dataset.from_tensor_slices(draws).map(one)
  return rows.batch(len(draws)).get_single_element().numpy()


def slow_box(crop, height, width, draws):
  """The algorithm, one try after the other, on the same random numbers."""
  for area, log_aspect, row, column in zip(*draws, strict=True):
    area = height * width * (crop.area[0] * (1 - area) + crop.area[1] * area)
    low, high = np.log(crop.aspect)
    aspect = math.exp(low + (high - low) * log_aspect)
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      return int(row * (height - h + 1)), int(column * (width - w + 1)), h, w
  h, w = height, width
  if width / height < crop.aspect[0]:
    h = round(width / crop.aspect[0])
  elif width / height > crop.aspect[1]:
    w = round(height * crop.aspect[1])
  return (height - h) // 2, (width - w) // 2, h, w


# Wide and tall images fail some tries, and sometimes all ten.
@pytest.mark.parametrize(
  ("height", "width"), [(375, 500), (120, 420), (420, 120), (90, 400), (3, 2)]
)
def test_boxes_are_those_of_the_slow_loop(height, width):
  crop = data.RandomResizedCrop(area=(0.05, 1.0))
  draws = uniform(300).astype(np.float64)
  found = boxes(crop, height, width, draws)
  expected = [
    slow_box(crop, height, width, row[:40].reshape(4, 10)) for row in draws
  ]
  np.testing.assert_array_equal(found[:, :4], expected)
  np.testing.assert_array_equal(found[:, 4], draws[:, 40] < 0.5)


def test_area_aspect_and_place_are_uniform():
  # Every try fits: the longer side is at most sqrt(0.5 * 4/3) of the image.
  crop = data.RandomResizedCrop(area=(0.1, 0.5), aspect=(3 / 4, 4 / 3))
  top, left, height, width, flip = boxes(crop, 1000, 1000, uniform(1000)).T
  for values, low, high in [
    (height * width / 1e6, 0.1, 0.5),
    (np.log(width / height), math.log(3 / 4), math.log(4 / 3)),
    (top / (1000 - height), 0, 1),
    (left / (1000 - width), 0, 1),
  ]:
    assert np.all((values > low - 2e-3) & (values < high + 2e-3))
    # 250 a quarter; the standard deviation is 14.
    counts, _ = np.histogram(values, 4, (low - 2e-3, high + 2e-3))
    assert np.all(np.abs(counts - 250) < 60)
  assert abs(flip.sum() - 500) < 70
  corners = top / (1000 - height), left / (1000 - width)
  assert abs(np.corrcoef(*corners)[0, 1]) < 0.12


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ((10, 1000), (0, 493, 10, 13)),  # 10 * 4/3
    ((1000, 10), (493, 0, 13, 10)),  # 10 / (3/4)
  ],
)
def test_the_middle_where_no_try_fits(shape, expected):
  crop = data.RandomResizedCrop(area=(0.5, 1.0))
  found = boxes(crop, *shape, uniform(5))
  np.testing.assert_array_equal(found[:, :4], [expected] * 5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": 0}, "size=0"),
    ({"area": (0.0, 1.0)}, "area="),
    ({"area": (0.5, 0.4)}, "area="),
    ({"area": (0.5, 1.1)}, "area="),
    ({"aspect": (0.0, 1.0)}, "aspect="),
    ({"aspect": (2.0, 1.0)}, "aspect="),
  ],
)
def test_impossible_random_crops(options, message):
  with pytest.raises(ValueError, match=message):
    data.RandomResizedCrop(**options)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": 0}, "size=0"),
    ({"size": 224, "short_side": 223}, "short_side=223 must be at least"),
    ({"method": "nearest"}, "method='nearest'"),
  ],
)
def test_impossible_center_crops(options, message):
  with pytest.raises(ValueError, match=message):
    data.CenterCrop(**options)
