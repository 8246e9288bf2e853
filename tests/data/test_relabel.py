import numpy as np
import pytest

from segformer.data.dataset import DataSource, LabelTable, relabel

SOURCE = DataSource(
    "street", ("road", "car", "bus", "sky"), ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)), LabelTable.identity(4), {}
)


def test_merging_renaming_and_ignoring() -> None:
    changed = relabel(SOURCE, (("bus", "vehicle"), ("car", "vehicle"), ("sky", "")))
    assert changed.classes == ("road", "vehicle")
    assert changed.palette == ((1, 1, 1), (2, 2, 2))
    raw = np.array([[0, 1, 2, 3, 255]], dtype=np.uint8)
    assert changed.table.apply(raw, "mask").tolist() == [[0, 1, 1, 255, 255]]
    with pytest.raises(ValueError, match="expected labels"):
        changed.table.apply(np.array([[4]], dtype=np.uint8), "mask")


def test_nothing_to_change() -> None:
    changed = relabel(SOURCE, ())
    assert changed.classes == SOURCE.classes
    assert np.array_equal(changed.table.values, SOURCE.table.values)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"data\.relabel must be one of .* did you mean 'car'"):
        relabel(SOURCE, (("cars", "vehicle"),))
    with pytest.raises(ValueError, match="must leave at least two classes, it leaves all"):
        relabel(SOURCE, tuple((name, "all") for name in SOURCE.classes))
