"""Whatever an image file is, its pixels are right, or it is refused by name."""

import io

import numpy as np
import pytest
from PIL import Image

from forgetsam import data
from forgetsam.data import import_tensorflow
from forgetsam.data.files import decode

GREY = np.random.RandomState(0).randint(0, 256, (8, 10)).astype(np.uint8)
RGB = np.random.RandomState(1).randint(0, 256, (8, 10, 3)).astype(np.uint8)
IMAGES = {
  "grey": Image.fromarray(GREY),
  "rgb": Image.fromarray(RGB),
  "1 bit": Image.fromarray(GREY > 128),
  "palette": Image.fromarray(RGB).quantize(7),
  "alpha": Image.fromarray(np.dstack([RGB, GREY])),
  "grey, alpha": Image.fromarray(np.dstack([GREY, GREY])),
  "cmyk": Image.fromarray(RGB).convert("CMYK"),
}
# Formats, and what each of them can hold.
HELD = {
  "BMP": ("grey", "rgb", "1 bit", "palette", "alpha"),
  "PNG": ("grey", "rgb", "1 bit", "palette", "alpha", "grey, alpha"),
  "GIF": ("grey", "rgb", "palette"),
  "JPEG": ("grey", "rgb", "cmyk"),
  "TIFF": ("grey", "rgb", "1 bit", "palette", "cmyk"),
  "WEBP": ("rgb", "alpha"),
}


def encoded(kind: str, file_format: str) -> bytes:
  file = io.BytesIO()
  IMAGES[kind].save(file, file_format)
  return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("file_format", HELD)
def test_every_mode_is_decoded_as_pillow_does(file_format, channels):
  tf = import_tensorflow()
  decoded = tf.function(lambda content: decode(content, channels))
  for kind in HELD[file_format]:
    content = encoded(kind, file_format)
    found = decoded(tf.constant(content)).numpy()
    mode = "L" if channels == 1 else "RGB"
    expected = np.asarray(Image.open(io.BytesIO(content)).convert(mode))
    # A JPEG's own grey is not that of its colours.
    most = 12 if file_format == "JPEG" and channels == 1 else 1
    difference = np.abs(found - expected.reshape(found.shape).astype(int))
    assert difference.max() <= most, kind


def test_16_bits_keep_their_high_byte():
  content = io.BytesIO()
  Image.fromarray(GREY.astype(np.uint16) * 256 + 77).save(content, "PNG")
  found = decode(import_tensorflow().constant(content.getvalue()), 1)
  np.testing.assert_array_equal(found[..., 0], GREY)


@pytest.fixture
def made(make_set):
  """A set whose images are these files."""
  import tensorflow_datasets as tfds

  def make(contents, fixed=True):
    rows = [{"image": c, "label": i % 2} for i, c in enumerate(contents)]
    shape = (8, 10, 1) if fixed else (None, None, 1)
    return make_set(
      {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=2),
      },
      {"train": rows, "test": rows},
    )

  return make


def test_grey_bitmaps_are_read_in_memory_and_streamed(made):
  directory = made([encoded("grey", "BMP"), encoded("grey", "PNG")])
  held = data.load("tiny", data_dir=directory)
  for image in held.train.images:
    np.testing.assert_array_equal(image[..., 0], GREY)
  options = data.StreamOptions(
    mean=0.0,
    std=1.0,
    eval_crop=data.CenterCrop(size=8, short_side=None),
    train_crop=data.RandomResizedCrop(size=8),
    skip_corrupt=True,
    threads=1,
  )
  split = data.stream_split("tiny", "train", options, data_dir=directory)
  assert split.left_out == 0
  [batch] = split.eval_batches(batch_size=2)
  for image in batch["image"]:
    np.testing.assert_array_equal(np.rint(255 * image[..., 0]), GREY)
  [batch] = split.train_batches(batch_size=2, seed=0, num_steps=1)
  assert batch["image"].shape == (2, 8, 8, 1)


def test_what_has_no_8_bits_is_refused_by_name(made):
  deep = io.BytesIO()
  Image.fromarray(GREY.astype(np.float32)).save(deep, "TIFF")
  with pytest.raises(data.DataError) as refused:
    data.load("tiny", data_dir=made([encoded("grey", "PNG"), deep.getvalue()]))
  said = str(refused.value)
  assert "example 1 cannot be used" in said
  assert "TIFF image has pixels of mode 'F'" in said
  assert "Traceback" not in said


def test_images_of_several_sizes_are_told_to_be_streamed(made):
  directory = made([encoded("grey", "PNG")], fixed=False)
  with pytest.raises(ValueError, match=r"one shape.*config\.data\.stream=true"):
    data.load("tiny", data_dir=directory)
