import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import draw_pair, write_folder
from segformer.data.cache import CachedSample, cached, store_array
from segformer.data.dataset import Pair
from segformer.data.images import RGB, Decoding
from segformer.data.joining import join
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError


@pytest.fixture
def pair(small_data: Path) -> Pair:
    (found, *_) = open_data(str(small_data)).samples("train")
    assert isinstance(found, Pair)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_sample_is_decoded_once(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = CachedSample(pair, tmp_path / "cache")
    first = kept.read()
    calls: list[Decoding] = []
    monkeypatch.setattr(Pair, "read", lambda self, decoding: calls.append(decoding))
    second = kept.read()
    assert not calls
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
        assert a.dtype == b.dtype
    assert kept.name == pair.name


def test_what_is_kept_is_what_is_read(pair: Pair, tmp_path: Path) -> None:
    kept = CachedSample(pair, tmp_path / "cache")
    kept.read()
    for mine, theirs in zip(kept.read(), pair.read(), strict=True):
        assert np.array_equal(mine, theirs)


def test_a_changed_file_is_decoded_anew(pair: Pair, tmp_path: Path) -> None:
    kept = CachedSample(pair, tmp_path / "cache")
    before, _ = kept.read()
    image, mask = draw_pair(99)
    Image.fromarray(image).save(pair.image)
    os.utime(pair.image, ns=(1, 1))
    after, _ = kept.read()
    assert np.array_equal(after, image)
    assert not np.array_equal(before, after)
    Image.fromarray(np.zeros_like(mask)).save(pair.mask)
    assert not kept.read()[1].any()


def test_each_decoding_is_kept_by_itself(pair: Pair, tmp_path: Path) -> None:
    Image.open(pair.image).resize((256, 192)).convert("L").save(jpeg := pair.image.with_suffix(".jpg"))
    Image.open(pair.mask).resize((256, 192)).save(pair.mask)
    kept = CachedSample(Pair("x", jpeg, pair.mask), tmp_path / "cache")
    shapes = [kept.read(decoding)[0].shape for decoding in (RGB, Decoding("raw", 1), Decoding(enough=(64, 48)))]
    assert shapes == [(192, 256, 3), (192, 256, 1), (48, 64, 3)]


def test_a_damaged_entry_is_made_again(pair: Pair, tmp_path: Path) -> None:
    kept = CachedSample(pair, tmp_path / "cache")
    image, _ = kept.read()
    for path in files(tmp_path / "cache"):
        path.write_bytes(path.read_bytes()[:40])
    again, _ = kept.read()
    assert np.array_equal(image, again)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(UserError, match="no space to write this file"):
        store_array(np.zeros(3), tmp_path / "ab" / "x.npy")
    assert not files(tmp_path)


def test_samples_of_a_joined_data_set_are_kept_and_drawn_ones_are_not(small_data: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", {"train": 2})
    joined = join([open_data(str(small_data)), open_data(str(other))])
    samples = cached(joined.samples("train"), str(tmp_path / "cache"))
    for mine, theirs in zip(samples, joined.samples("train"), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine.read(), theirs.read(), strict=True))
    assert len(files(tmp_path / "cache")) == 2 * len(samples)
    scenes = open_data("toytown").samples("val")
    assert cached(scenes, str(tmp_path / "none")) == list(scenes)
