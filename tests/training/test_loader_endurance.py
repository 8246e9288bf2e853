"""Loaders that run for days, or are made by the thousand, keep nothing; a damaged image is named."""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from conftest import write_folder
from segformer import load, open_data
from segformer.cli.main import main
from segformer.config import DataConfig, Preprocessing
from segformer.data.dataset import DataSource
from segformer.data.loading import SegmentationDataset, iterate
from segformer.data.transforms import SegmentationTransform, stack
from segformer.inference.samples import load_whole
from segformer.training.loader import StepBatches, build_loader

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts memory and handles in Linux' /proc")
DATA = DataConfig(resize=(64, 48), crop=(32, 32))
SMALL = ["--data.resize", "64", "48", "--data.crop", "32", "32", "--model.decoder-channels", "32"]
SMALL += ["--preprocessing.long-side", "64", "--preprocessing.short-side", "48"]
EPOCHS, LOOKS = 1000, (200, 460, 720, 980)  # towards the end there is nothing more to fetch ahead
MB = 1 << 20


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More gain nothing on crops so small, and cost a lot where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


Workers = Callable[[], list[int]]


@pytest.fixture
def workers() -> Workers:
    """Tells the processes that were started since the test began, and still run."""
    before = {child.pid for child in active_children()}
    return lambda: sorted(child.pid for child in active_children() if child.pid and child.pid not in before)


@dataclass(frozen=True)
class Footprint:
    """What this process and its workers hold."""

    memory: int
    """Resident bytes of this process."""
    worker_memory: dict[int, int]
    """The same of each worker."""
    handles: int
    """Open files of all together: a batch on its way is one of whoever has it just then."""
    blocks: int
    """Pieces of memory that Python has given out in this process: shows a leak too small to see in bytes."""


def footprint(workers: Workers) -> Footprint:
    gc.collect()
    rest(workers)
    pids = workers()
    return Footprint(
        resident(os.getpid()), {pid: resident(pid) for pid in pids}, handles(pids), sys.getallocatedblocks()
    )


def rest(workers: Workers) -> None:
    """Wait until the workers have fetched ahead all they may."""
    seen: list[int] = []
    while workers() and (len(seen) < 10 or len(set(seen[-10:])) > 1):
        assert len(seen) < 400, f"the workers do not come to rest: {seen}"
        time.sleep(0.05)
        seen.append(handles(workers()))


def handles(pids: list[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in [os.getpid(), *pids])


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def assert_no_growth(taken: list[Footprint]) -> None:
    """A leak grows in every stretch, the heap of a worker in one or two, by up to 4 MB in all, until it has settled.

    Measured where nothing leaks: this process grows by 0.2 MB and 1000 blocks at most, and no handle is left.
    """
    first, last = taken[0], taken[-1]
    assert last.memory - first.memory < MB
    assert last.worker_memory.keys() == first.worker_memory.keys(), "other workers than before"
    for worker in first.worker_memory:
        stretches = [later.worker_memory[worker] - earlier.worker_memory[worker] for earlier, later in pairwise(taken)]
        assert min(stretches) < MB, stretches
    assert last.handles <= first.handles
    assert last.blocks < first.blocks + 1500


def training_set(source: DataSource) -> SegmentationDataset:
    transform = SegmentationTransform(DATA, Preprocessing(long_side=64, short_side=48))
    return SegmentationDataset(source.samples("train"), source.table, transform)


def loader_of(
    dataset: SegmentationDataset, number: int, *, steps: int, batch_size: int, num_workers: int
) -> DataLoader[Any]:
    batches = StepBatches(number, steps=steps, batch_size=batch_size, seed=0)
    return build_loader(dataset, workers=num_workers, batch_sampler=batches, collate_fn=stack)


@linux
def test_a_thousand_epochs_in_one_loader_keep_nothing(workers: Workers, tmp_path: Path) -> None:
    dataset = training_set(open_data(str(write_folder(tmp_path / "data", {"train": 4, "val": 1}))))
    loader = loader_of(dataset, 4, steps=EPOCHS, batch_size=4, num_workers=2)
    taken = []
    epoch = 0
    for epoch, _ in enumerate(iterate(loader), start=1):
        if epoch in LOOKS:
            taken.append(footprint(workers))
    assert epoch == EPOCHS
    assert not workers()
    assert len(taken[0].worker_memory) == 2
    assert_no_growth(taken)


def read_all(pairs: Iterator[object], workers: Workers) -> None:
    assert len(list(pairs)) == 6
    assert not workers()


def abandon_half_way(pairs: Iterator[object], workers: Workers) -> None:
    assert len(list(islice(pairs, 3))) == 3
    assert len(workers()) == 2


@linux
@pytest.mark.parametrize("number", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("use", [read_all, abandon_half_way])
def test_loaders_made_and_dropped_leave_nothing(
    use: Callable[[Iterator[object], Workers], None], number: int, workers: Workers, tmp_path: Path
) -> None:
    source = open_data(str(write_folder(tmp_path / "data", {"val": 6})))
    taken = []
    for made in range(1, number + 1):
        use(load_whole(source, source.samples("val"), workers=2), workers)
        assert not workers()
        if made % (number // 4) == 0:
            taken.append(footprint(workers))
    assert_no_growth(taken)


def damage(path: Path) -> bytes:
    """Cut an image in half, behind its header; returns it as it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with Image.open(path) as image:
        assert image.size == (64, 48)
    return whole


def half_way(number: int, batch_size: int = 2) -> int:
    """Index of the image that comes in the middle of the first epoch."""
    batches = StepBatches(number, steps=number // batch_size, batch_size=batch_size, seed=0)
    return batches.item(number // 2)[1]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_image_amid_an_epoch_is_named(
    num_workers: int, suffix: str, workers: Workers, tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "data", {"train": 12, "val": 1})
    old = root / "images" / "train" / f"{half_way(12):03}.png"
    path = old.with_suffix(suffix)
    image = Image.open(old)
    old.unlink()
    image.save(path, quality=95)
    damage(path)
    loader = loader_of(training_set(open_data(str(root))), 12, steps=6, batch_size=2, num_workers=num_workers)
    batches: list[object] = []
    with pytest.raises(ValueError, match="damaged image") as raised:
        batches.extend(iterate(loader))
    assert len(batches) == 3  # those before it
    message = str(raised.value)
    assert message.startswith(f"{path}: damaged image")
    assert "Traceback" not in message
    assert "\n" not in message
    assert not workers()


@pytest.mark.parametrize(("num_workers", "eval_every", "saved"), [(0, 6, set()), (2, 2, {"best", "last"})])
def test_the_command_names_a_damaged_image_and_goes_on_once_it_is_mended(
    num_workers: int, eval_every: int, saved: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = write_folder(tmp_path / "data", {"train": 12, "val": 2}), tmp_path / "run"
    path = root / "images" / "train" / f"{half_way(12):03}.png"
    whole = damage(path)
    arguments = ["train", "--data", str(root), "--run-dir", str(run), *SMALL]
    arguments += ["--train.steps", "6", "--train.batch-size", "2", "--train.eval-every", str(eval_every)]
    arguments += ["--train.workers", str(num_workers)]
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: damaged image")
    assert {p.name for p in run.iterdir()} - {"recipe.json", "manifest.json", "metrics.jsonl", "tensorboard"} == saved
    for folder in saved:
        load(run / folder)
    path.write_bytes(whole)
    main([*arguments, *(["--resume"] if saved else [])])
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
