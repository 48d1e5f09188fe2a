"""Paths mean what users mean, or are refused by name."""

from pathlib import Path

import pytest

from forgetsam import data, interop, load_run
from forgetsam._paths import local_path, mistaken_scheme, scheme_of


@pytest.mark.parametrize(
  ("written", "meant"),
  [
    ("~", "/home/me"),
    ("~/x", "/home/me/x"),
    (Path("~/x"), "/home/me/x"),
    ("~root", str(Path("~root").expanduser())),
    ("x/~y", "x/~y"),
    ("./~y", "~y"),
    ("file:///x/y", "/x/y"),
    ("file:/x", "/x"),
    ("FILE:///x", "/x"),
    ("file://localhost/x", "/x"),
    ("file:///a%20b", "/a b"),
    (Path("file:///x"), "/x"),
    ("a:b/c", "a:b/c"),
    ("a[b]/%20", "a[b]/%20"),
  ],
)
def test_a_path_means(
  written: str | Path, meant: str, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setenv("HOME", "/home/me")
  assert local_path("--workdir", written) == Path(meant)


REMOTE = ["gs://b/x", "S3://b", "hdfs://h:90/x", "http://x", Path("gs://b/x")]


@pytest.mark.parametrize("written", REMOTE)
def test_a_remote_path_is_refused(written: str | Path):
  scheme = scheme_of(written)
  with pytest.raises(ValueError, match=f"(?s)--w={str(written)!r}.*{scheme}:/"):
    local_path("--w", written)


@pytest.mark.parametrize(
  ("written", "remedy"),
  [
    ("~nobody-of-that-name/x", r"\./~nobody-of-that-name"),
    ("file://host/x", "file:///PATH"),
    ("", "UTF-8"),
    ("a\0b", "null"),
    ("a\udcff", "UTF-8"),
  ],
)
def test_what_is_no_path_is_refused(written: str, remedy: str):
  with pytest.raises(ValueError, match=f"(?s)--w=.*allowed: .*{remedy}"):
    local_path("--w", written)


def test_the_library_takes_such_paths(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "w.pth.x").touch()
  with pytest.raises(ValueError, match="suffix"):
    interop.from_torch("mlp", f"file://{tmp_path}/w.pth.x", num_classes=2)
  with pytest.raises(ValueError, match=rf"{tmp_path}/run .*no config\.json"):
    load_run("~/run")
  with pytest.raises(data.DatasetNotFoundError, match=f"in:\n  {tmp_path}/d\n"):
    data.check_available("mnist", "~/d")
  for load in (load_run, lambda path: data.check_available("mnist", path)):
    with pytest.raises(ValueError, match=r"(?s)s3://b.*s3:// is not supported"):
      load("s3://b/x")


def test_a_local_folder_that_is_taken_for_a_bucket_is_refused(
  monkeypatch: pytest.MonkeyPatch,
):
  assert mistaken_scheme("/s3/b") == "s3"
  assert mistaken_scheme("/mnt/s3") is None
  with pytest.raises(ValueError, match=r"(?s)data_dir='/s3/b'.*not below /s3"):
    data.check_available("mnist", "/s3/b")
  monkeypatch.setenv("XDG_CACHE_HOME", "s3://b")
  with pytest.raises(ValueError, match="XDG_CACHE_HOME='s3://b' is refused"):
    data.check_available("digits")


def test_a_remote_directory_that_cannot_be_reached_is_named(
  monkeypatch: pytest.MonkeyPatch,
):
  def reach(*_: object, **__: object) -> None:
    raise OSError("no route")

  monkeypatch.setattr("etils.epath.gpath._GPath.is_dir", reach)
  with pytest.raises(
    data.DatasetNotFoundError, match="gs://b/x cannot be read: no route"
  ):
    data.check_available("mnist", "gs://b/x")
