from pathlib import Path

import numpy as np
import pytest

from segformer import resumable
from segformer.errors import UserError
from segformer.resumable import IDENTITY, Store

IDENTITY_A = {"weights": "1a", "protocol": {"crop": (64, 64), "flip": False}}
IDENTITY_B = {"weights": "1a", "protocol": {"crop": (64, 64), "flip": True}}


def store(folder: Path | None, identity: dict[str, object] = IDENTITY_A) -> Store:
    return Store(folder, identity, work="evaluation")


def test_pieces_are_found_by_the_same_work(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "kept"
    first = store(folder)
    assert not first.has("one.json")
    assert not folder.exists()  # asking writes nothing
    first.save_json("one.json", {"x": [1, None]})
    first.save_arrays("two.npz", {"x": np.arange(3), "y": np.zeros((2, 2), bool)})
    again = store(folder)
    assert again.has("one.json")
    assert not again.has("three.json")
    assert again.load_json("one.json") == {"x": [1, None]}
    arrays = again.load_arrays("two.npz")
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])
    assert arrays["y"].dtype == bool
    again.remove()
    assert not folder.exists()


def test_a_store_without_a_folder_keeps_nothing() -> None:
    nowhere = store(None)
    nowhere.save_json("one.json", {})
    nowhere.save_arrays("one.npz", {})
    with nowhere.saving("one.npz", dict) as advanced:
        advanced()
    nowhere.finish()
    nowhere.remove()
    assert not nowhere.has("one.json")


@pytest.mark.parametrize(
    ("identity", "difference"),
    [
        (IDENTITY_B, "protocol.flip is false there and true here"),
        ({"weights": "2b"}, "weights is 1a there and 2b here"),
        (IDENTITY_A | {"limit": 3}, "limit is missing there and 3 here"),
        ({"weights": "1a"}, "protocol.crop is [64, 64] there and missing here"),
    ],
)
def test_the_folder_of_another_work_is_an_error_that_says_what_differs(
    tmp_path: Path, identity: dict[str, object], difference: str
) -> None:
    store(tmp_path).save_json("one.json", 1)
    with pytest.raises(UserError) as raised:
        store(tmp_path, identity)
    assert str(raised.value) == (
        f"{tmp_path} holds another evaluation: {difference}; give another folder (--out), or remove this one"
    )
    assert store(tmp_path).load_json("one.json") == 1


def test_the_pieces_of_a_finished_work_may_be_replaced(tmp_path: Path) -> None:
    first = store(tmp_path / "kept")
    first.save_json("one.json", "first")
    first.save_json("two.json", "first")
    first.finish()
    assert store(tmp_path / "kept").load_json("one.json") == "first"  # the same work still finds them
    second = store(tmp_path / "kept", IDENTITY_B)
    assert not second.has("one.json")
    second.save_json("two.json", "second")
    again = store(tmp_path / "kept", IDENTITY_B)
    assert not again.has("one.json")  # a piece of the first work is never taken for one of the second
    assert again.load_json("two.json") == "second"
    with pytest.raises(UserError, match="holds another evaluation"):
        store(tmp_path / "kept")


def test_a_folder_of_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"expected an empty folder or one with an identity\.json, got other files"):
        store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_what_a_kill_left_of_the_first_write_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{IDENTITY}.1.partial").write_text("{")
    store(tmp_path).save_json("one.json", 1)
    assert store(tmp_path).has("one.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_identity_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / IDENTITY).write_text(text)
    with pytest.raises(UserError, match=r"identity\.json: "):
        store(tmp_path)


@pytest.mark.parametrize("size", [0, 10, 0.5, 0.9])
def test_a_damaged_piece_is_named(tmp_path: Path, size: float) -> None:
    kept = store(tmp_path)
    kept.save_arrays("sums.npz", {"x": np.random.default_rng(0).random(1000)})
    kept.save_json("cell.json", {"x": 1})
    path = tmp_path / "sums.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(size * len(data)) if isinstance(size, float) else size])
    with pytest.raises(UserError, match=r"sums\.npz: damaged, expected a file of an interrupted evaluation; give"):
        kept.load_arrays("sums.npz")
    (tmp_path / "cell.json").write_text("{")
    with pytest.raises(UserError, match=r"cell\.json: damaged"):
        kept.load_json("cell.json")


def test_a_piece_with_a_flipped_bit_is_named(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.save_arrays("sums.npz", {"x": np.random.default_rng(0).random(1000)})
    data = bytearray((tmp_path / "sums.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "sums.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"sums\.npz: damaged"):
        kept.load_arrays("sums.npz")


class Sums:
    """A state that grows, and the number of times that it was saved."""

    def __init__(self) -> None:
        self.total = 0
        self.saves = 0

    def arrays(self) -> dict[str, np.ndarray]:
        self.saves += 1
        return {"total": np.array(self.total)}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interruption_loses_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    sums, kept = Sums(), store(tmp_path)

    def work() -> None:
        with kept.saving("sums.npz", sums.arrays) as advanced:
            for number in (1, 2, 3):
                if number == 3:
                    raise error
                sums.total += number
                advanced()

    with pytest.raises(error):
        work()
    assert sums.saves == 1
    assert store(tmp_path).load_arrays("sums.npz")["total"] == 3


def test_a_kill_loses_at_most_half_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(resumable.time, "monotonic", lambda: now)
    sums, kept = Sums(), store(tmp_path)
    with kept.saving("sums.npz", sums.arrays) as advanced:
        for seconds in range(0, 100, 10):
            now, sums.total = float(seconds), seconds
            advanced()
            if kept.has("sums.npz"):
                assert seconds - kept.load_arrays("sums.npz")["total"] <= 30
    assert sums.saves == 3  # at 40 s, at 80 s and at the end
    assert kept.load_arrays("sums.npz")["total"] == 90


def test_nothing_is_saved_where_nothing_was_done(tmp_path: Path) -> None:
    sums = Sums()
    with store(tmp_path / "kept").saving("sums.npz", sums.arrays):
        pass
    assert sums.saves == 0
    assert not (tmp_path / "kept").exists()
