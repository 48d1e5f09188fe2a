"""Common corruptions of images of 32 pixels, one function each.

Written from the published definitions. A function takes an image in [0, 1], its
severity's constants and a generator; its result may leave [0, 1].

References:
  Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to Common
  Corruptions and Perturbations*, 2019, and the constants of its code.
"""

import io
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import ndimage

Pixels = Float[np.ndarray, "height width 3"]  # in [0, 1]
Rng = np.random.Generator
SIDE = 32


def gaussian_noise(x: Pixels, scale: float, rng: Rng) -> Pixels:
  """Adds normal noise."""
  return x + rng.normal(scale=scale, size=x.shape)


def shot_noise(x: Pixels, photons: float, rng: Rng) -> Pixels:
  """Counts photons."""
  return rng.poisson(x * photons) / photons


def impulse_noise(x: Pixels, amount: float, rng: Rng) -> Pixels:
  """Sets a fraction of all values to 0 or 1."""
  hit = rng.random(x.shape) < amount
  return np.where(hit, rng.random(x.shape) < 0.5, x)


def defocus_blur(x: Pixels, c: tuple[float, float], rng: Rng) -> Pixels:
  """Averages over a disk whose rim is smoothed."""
  del rng
  radius, rim = c
  at = np.arange(-8, 9)
  disk = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
  kernel = np.exp(-np.array([1, 0, 1]) / (2 * rim**2))
  smooth = ndimage.convolve(disk / disk.sum(), np.outer(kernel, kernel))
  return ndimage.convolve(x, (smooth / smooth.sum())[..., None], mode="mirror")


def _blurred(x: Pixels, sigma: float) -> Pixels:
  return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def glass_blur(x: Pixels, c: tuple[float, int, int], rng: Rng) -> Pixels:
  """Exchanges pixels with neighbours, between two blurs."""
  sigma, reach, times = c
  x = _blurred(x, sigma)
  inside = range(SIDE - reach, reach, -1)
  for _ in range(times):
    for row in inside:
      for column in inside:
        down, right = rng.integers(-reach, reach, 2)
        here, there = (row, column), (row + down, column + right)
        x[here], x[there] = x[there].copy(), x[here].copy()
  return _blurred(x, sigma)


def _moved(x: Any, radius: int, sigma: float, degrees: float) -> Any:
  """Averages shifts along a line, with the weights of half a Gaussian."""
  steps = np.arange(2 * radius + 1)
  weights = np.exp(-(steps**2) / (2 * sigma**2))
  angle = np.deg2rad(degrees)
  rest = (0,) * (x.ndim - 2)
  shifts = zip(
    np.round(steps * np.sin(angle)),
    np.round(steps * np.cos(angle)),
    strict=True,
  )
  parts = [
    ndimage.shift(x, (*s, *rest), order=0, mode="nearest") for s in shifts
  ]
  return np.tensordot(weights / weights.sum(), np.stack(parts), 1)


def motion_blur(x: Pixels, c: tuple[int, float], rng: Rng) -> Pixels:
  """Moves the camera while the shutter is open."""
  return _moved(x, *c, rng.uniform(-45, 45))


def _zoomed(x: Any, factor: float) -> Any:
  """The middle of an image, enlarged to its size."""
  size = int(np.ceil(SIDE / factor))
  start = (SIDE - size) // 2
  middle = x[start : start + size, start : start + size]
  rest = (1,) * (x.ndim - 2)
  large = ndimage.zoom(middle, (factor, factor, *rest), order=1)
  trim = (len(large) - SIDE) // 2
  return large[trim : trim + SIDE, trim : trim + SIDE]


def zoom_blur(x: Pixels, furthest: float, rng: Rng) -> Pixels:
  """Averages enlargements."""
  del rng
  factors = np.arange(1, furthest, 0.01)
  zooms = [x, *(_zoomed(x, factor) for factor in factors)]
  return np.mean(zooms, axis=0)


def snow(x: Pixels, c: tuple[Any, ...], rng: Rng) -> Pixels:
  """Lets flakes fall over a whitened image."""
  mean, std, zoom, threshold, radius, sigma, kept = c
  layer = _zoomed(rng.normal(mean, std, (SIDE, SIDE)), zoom)
  layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
  flakes = _moved(layer, radius, sigma, rng.uniform(-135, -45))[..., None]
  grey = x @ np.array([0.299, 0.587, 0.114])
  white = np.maximum(x, grey[..., None] * 1.5 + 0.5)
  return kept * x + (1 - kept) * white + flakes + np.rot90(flakes, 2)


def _plasma(decay: float, rng: Rng) -> Any:
  """A cloud in [0, 1] by midpoint displacement, on a torus."""
  cloud, height, step = np.zeros((SIDE, SIDE)), 100.0, SIDE
  while step >= 2:
    half = step // 2
    corners = cloud[::step, ::step]
    corners = corners + np.roll(corners, -1, 0)
    centre = (corners + np.roll(corners, -1, 1)) / 4

    def displaced(means: Any, height: float = height) -> Any:
      return means + height * rng.uniform(-1, 1, means.shape)

    cloud[half::step, half::step] = middle = displaced(centre)
    grid = cloud[::step, ::step]
    left = middle + np.roll(middle, 1, 1) + grid + np.roll(grid, -1, 0)
    cloud[half::step, ::step] = displaced(left / 4)
    top = middle + np.roll(middle, 1, 0) + grid + np.roll(grid, -1, 1)
    cloud[::step, half::step] = displaced(top / 4)
    step, height = half, height / decay
  cloud -= cloud.min()
  return cloud / cloud.max()


def frost(x: Pixels, c: tuple[float, float], rng: Rng) -> Pixels:
  """Lays a drawn, bluish texture of ridges over the image."""
  image, ice = c
  ridges = 1 - np.abs(2 * _plasma(1.6, rng) - 1)
  texture = np.clip(1.6 * ridges - 0.3, 0, 1)[..., None]
  return image * x + ice * texture * np.array([0.85, 0.95, 1.0])


def fog(x: Pixels, c: tuple[float, float], rng: Rng) -> Pixels:
  """Adds a cloud, and keeps the brightest value."""
  thickness, decay = c
  brightest = x.max()
  clouded = x + thickness * _plasma(decay, rng)[..., None]
  return clouded * brightest / (brightest + thickness)


def brightness(x: Pixels, amount: float, rng: Rng) -> Pixels:
  """Raises the value of hue, saturation and value."""
  del rng
  value = x.max(-1, keepdims=True)
  scale = np.clip(value + amount, 0, 1) / np.where(value > 0, value, 1)
  return np.where(value > 0, x * scale, amount)


def contrast(x: Pixels, kept: float, rng: Rng) -> Pixels:
  """Draws each channel towards its mean."""
  del rng
  means = x.mean((0, 1))
  return (x - means) * kept + means


def elastic_transform(
  x: Pixels, c: tuple[float, float, float], rng: Rng
) -> Pixels:
  """Moves three corners of a square, then every pixel a little."""
  strength, smoothness, reach = (SIDE * value for value in c)
  middle, third = SIDE / 2, SIDE / 3
  square = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
  moved = square + rng.uniform(-reach, reach, square.shape)
  ones = np.ones((3, 1))
  affine = np.linalg.solve(np.hstack([moved, ones]), square)
  rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
  place = np.stack([rows, columns, np.ones_like(rows)], -1) @ affine
  for axis in range(2):
    noise = rng.uniform(-1, 1, (SIDE, SIDE))
    smooth = ndimage.gaussian_filter(noise, smoothness, mode="reflect")
    place[..., axis] += strength * smooth
  at = np.moveaxis(place, -1, 0)
  channels = [
    ndimage.map_coordinates(x[..., i], at, order=1, mode="reflect")
    for i in range(3)
  ]
  return np.stack(channels, -1)


def _picture(x: Pixels) -> Image.Image:
  return Image.fromarray(np.uint8(np.round(255 * x)))


def pixelate(x: Pixels, scale: float, rng: Rng) -> Pixels:
  """Makes the image smaller, then as large as before."""
  del rng
  small = _picture(x).resize((int(SIDE * scale),) * 2, Image.Resampling.BOX)
  return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255


def jpeg_compression(x: Pixels, quality: int, rng: Rng) -> Pixels:
  """Stores the image as JPEG."""
  del rng
  file = io.BytesIO()
  _picture(x).save(file, "JPEG", quality=quality)
  return np.asarray(Image.open(file)) / 255
