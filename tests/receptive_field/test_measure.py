from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import draw_pair
from networks import FakeNetwork
from segformer.config import Preprocessing
from segformer.data.images import RGB, Decoding
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.receptive_field.field import Fields, receptive_fields
from segformer.receptive_field.measure import center_crop, choose_size, measure, read_pixels
from segformer.receptive_field.probes import Probe, probe_model

SIZE = (64, 64)


@dataclass(frozen=True)
class Drawn:
    seed: int

    @property
    def name(self) -> str:
        return f"drawn {self.seed}"

    def read(self, decoding: Decoding = RGB) -> tuple[np.ndarray, np.ndarray]:
        return draw_pair(self.seed, (64, 80))


SAMPLES = [Drawn(seed) for seed in range(5)]


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    return build_model("mit_b0", num_classes=3)


@pytest.fixture(scope="module")
def probes(model: Segmenter) -> list[Probe]:
    torch.manual_seed(1)
    return [probe_model(model, "first"), probe_model(build_model("mit_b0", num_classes=3), "second")]


def run(model: Segmenter, probes: list[Probe], out: Path, **changes: object) -> Fields:
    options = {"card": model.card, "size": SIZE, "limit": 4, "out": out} | changes
    return measure(probes, "drawn", options.pop("samples", SAMPLES), **options)


def test_stopped_and_resumed_is_the_same_exactly(model: Segmenter, probes: list[Probe], tmp_path: Path) -> None:
    whole = run(model, probes, tmp_path / "whole")
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if seen == [0, 1, 2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, probes, tmp_path / "parts", progress=stop)
    resumed = run(model, probes, tmp_path / "parts", progress=stop)
    assert seen == [0, 1, 2, 2, 3, 4]
    for label in ("first", "second"):
        assert resumed[label].count == whole[label].count == 4
        assert list(resumed[label].sums) == list(whole[label].sums)
        for name in whole[label].sums:
            np.testing.assert_array_equal(resumed[label][name].map, whole[label][name].map)
            assert resumed[label][name].stride == whole[label][name].stride
    assert {path.name for path in (tmp_path / "parts" / "state").iterdir()} == {"identity.json", "sums.npz"}


def test_it_is_the_mean_over_the_images(model: Segmenter, probes: list[Probe], tmp_path: Path) -> None:
    found = run(model, probes, tmp_path, limit=2)["second"]
    images = [probes[1].normalize(read_pixels(sample, model.card, SIZE)) for sample in SAMPLES[:2]]
    expected = receptive_fields(probes[1].outputs, images)
    for name in expected.sums:
        np.testing.assert_array_equal(found[name].map, expected[name].map)


def test_it_is_saved_while_it_runs(
    model: Segmenter, probes: list[Probe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segformer.resumable.SAVE_EVERY", -1.0)
    there = []
    run(
        model,
        probes,
        tmp_path,
        limit=3,
        progress=lambda done, _: there.append((tmp_path / "state" / "sums.npz").exists()),
    )
    assert there == [False, True, True, True]


def test_more_images_are_added_to_fewer(model: Segmenter, probes: list[Probe], tmp_path: Path) -> None:
    run(model, probes, tmp_path, limit=1)
    seen = []
    assert run(model, probes, tmp_path, limit=2, progress=lambda *at: seen.append(at))["first"].count == 2
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(
        UserError, match=r"has results of 2 images, expected at most 1; raise --limit or give another --out"
    ):
        run(model, probes, tmp_path, limit=1)


def test_what_is_kept_of_something_else_is_refused(model: Segmenter, probes: list[Probe], tmp_path: Path) -> None:
    run(model, probes, tmp_path, limit=1)
    with pytest.raises(
        UserError, match=r"holds another measurement of receptive fields: size is \[64, 64\] there and \[64, 128\] here"
    ):
        run(model, probes, tmp_path, size=(64, 128))
    with pytest.raises(UserError, match=r"models.second is \w+ there and missing here; give"):
        run(model, probes[:1], tmp_path)
    torch.manual_seed(7)
    changed = [probes[0], probe_model(build_model("mit_b0", num_classes=3), "second")]
    with pytest.raises(UserError, match=r"models.second is \w+ there and \w+ here"):
        run(model, changed, tmp_path)
    with pytest.raises(UserError, match=r"image_names is \w+ there and \w+ here"):
        run(model, probes, tmp_path, samples=SAMPLES[::-1])
    (tmp_path / "state" / "sums.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(
        UserError, match=r"sums.npz: damaged, expected a file of an interrupted measurement .*; give another"
    ):
        run(model, probes, tmp_path)


def test_a_state_of_version_0_1_is_refused_and_stays(model: Segmenter, probes: list[Probe], tmp_path: Path) -> None:
    (tmp_path / "erf.npz").write_bytes(b"old")
    with pytest.raises(
        UserError, match=r"erf\.npz was written by version 0\.1 and cannot be resumed; give another folder"
    ):
        run(model, probes, tmp_path)
    assert (tmp_path / "erf.npz").read_bytes() == b"old"


def test_every_kind_of_network(model: Segmenter, tmp_path: Path) -> None:
    """A fused model has the maps of the model; of a stranger's network only the logits are known."""
    probes = [probe_model(model, "model"), probe_model(model.fuse(), "fused"), probe_model(FakeNetwork(), "fake")]
    found = run(model, probes, tmp_path, limit=1)
    assert list(found["fused"].sums) == list(found["model"].sums)
    for name, expected in found["model"].sums.items():
        np.testing.assert_allclose(found["fused"].sums[name], expected, rtol=1e-3, atol=1e-5 * expected.max())
    field = found["fake"]["logits"]
    assert (field.stride, np.count_nonzero(field.map)) == (4, 4 * 4)  # it averages squares of 4 x 4 pixels


def test_a_network_without_a_gradient_is_named(model: Segmenter, tmp_path: Path) -> None:
    class Exported(FakeNetwork):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return super().__call__(images.detach())

    with pytest.raises(UserError, match=r"^exported: logits has no gradient with respect to the image"):
        run(model, [probe_model(Exported(), "exported")], tmp_path)


def test_an_error_names_the_network(model: Segmenter, probes: list[Probe], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"first: at the size .*, the center of stage 4 \(3 x 3\) is not at the center"):
        run(model, probes, tmp_path, size=(96, 96))
    assert not list(tmp_path.iterdir())


def test_images_are_covered_and_cut_in_the_middle() -> None:
    image = torch.arange(8 * 12).view(1, 8, 12).to(torch.uint8)
    assert torch.equal(center_crop(image, (8, 8)), image[:, :, 2:10])
    assert torch.equal(center_crop(image, (6, 12)), image[:, 1:7])
    assert center_crop(image, (64, 64)).shape == (1, 64, 64)
    assert center_crop(image, (4, 4)).shape == (1, 4, 4)
    assert center_crop(torch.zeros(3, 479, 641), (512, 512)).shape == (3, 512, 512)


def test_sizes() -> None:
    assert choose_size(None, Preprocessing(short_side=1024)) == (1024, 1024)
    assert choose_size(None, Preprocessing(short_side=20)) == (64, 64)
    assert choose_size((512, 1024), Preprocessing()) == (512, 1024)
    for wrong in ((500, 512), (512, 0), (-64, 64)):
        with pytest.raises(UserError, match=f"--size must be two multiples of 64 .*got {wrong[0]} {wrong[1]}"):
            choose_size(wrong, Preprocessing())
