import shutil
from pathlib import Path

import pytest

from conftest import SHARED_DATA, write_folder


@pytest.fixture(params=["dubai6_mini", "drawn"])
def clean(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data set without faults: a copy of real tiles, or drawn."""
    if request.param == "drawn":
        return write_folder(tmp_path / "data", {"train": 8, "val": 4}, size=(96, 128))
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return Path(shutil.copytree(SHARED_DATA / "dubai6_mini", tmp_path / "data"))
