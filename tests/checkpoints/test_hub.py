import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from PIL import Image

import segformer
from segformer.checkpoints.hub import is_id
from segformer.checkpoints.model_folder import push_to_hub, save
from segformer.cli.main import main
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from transformers_parity import relative_difference, transformers_model


@pytest.fixture(scope="module")
def model() -> Segmenter:
    torch.manual_seed(0)
    return build_model("mit_b0", num_classes=3, decoder_channels=32).eval()


def forbidden(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the hub must not be asked")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub without a network and without anything in its cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


class FakeHub:
    """A repository in a folder, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []
        self.patterns: list[str] = []
        self.list_error: Exception | None = None
        self.options: dict[str, object] = {}

    def list_repo_files(self, repo_id: str, *, revision: str | None = None, **_: object) -> list[str]:
        self.asked.append((repo_id, revision))
        if self.list_error:
            raise self.list_error
        return [path.name for path in self.folder.iterdir()]

    def snapshot_download(
        self, repo_id: str, *, revision: str | None = None, allow_patterns: list[str], **options: object
    ) -> str:
        self.asked.append((repo_id, revision))
        self.options = options
        self.patterns = allow_patterns
        return str(self.folder)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    hub = FakeHub(tmp_path / "snapshot")
    hub.folder.mkdir()
    monkeypatch.setattr(huggingface_hub, "list_repo_files", hub.list_repo_files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nvidia/segformer-b0-finetuned-ade-512-512", True),
        ("someone/model@v1.0", True),
        ("someone/model@refs/pr/3", True),
        ("a_b/c.d", True),
        ("model", False),
        ("runs/mine/best", False),
        ("./someone/model", False),
        ("../someone", False),
        ("/data/model", False),
        ("~/model", False),
        ("someone/", False),
        ("someone/model@", False),
        ("some one/model", False),
        ("https://huggingface.co/someone/model", False),
        ("", False),
    ],
)
def test_ids(source: str, expected: bool) -> None:
    assert is_id(source) == expected


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("source", ["someone/nothing-here", "someone/nothing-here@v2"])
def test_offline_and_not_in_the_cache(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=f"no file or folder '{source}', and it could not be downloaded"):
        segformer.load(source)
    with pytest.raises(SystemExit) as stopped:
        main(["info", source])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: no file or folder '{source}'")


def http_error(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind(f"{status} Client Error. (Request ID: x)\n\nNot found for url", response=response)


@pytest.mark.parametrize(
    "error",
    [
        http_error(RepositoryNotFoundError, 401),
        http_error(GatedRepoError, 403),
        http_error(RevisionNotFoundError, 404),
        http_error(HfHubHTTPError, 503),
        TimeoutError("timed out"),
        ConnectionError("no route"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_hub_refuses_is_one_clear_line(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(huggingface_hub, "list_repo_files", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(SystemExit) as stopped:
        main(["info", "someone/model"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: no file or folder 'someone/model', and it could not be downloaded")
    assert str(error).split()[0] in line


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("source", ["no/such/folder", "model.pth", "./someone/model"])
def test_what_is_no_id_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", forbidden)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", forbidden)
    with pytest.raises(UserError, match=f"no model at '{source}'; give"):
        segformer.load(source)


@pytest.mark.parametrize(("source", "revision"), [("someone/model", None), ("someone/model@v1.2", "v1.2")])
def test_a_model_of_this_package(fake: FakeHub, model: Segmenter, source: str, revision: str | None) -> None:
    save(model, fake.folder)
    loaded = segformer.load(source)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert relative_difference(loaded(images), model(images)) < 1e-5
    assert loaded.card == model.card
    assert set(fake.asked) == {("someone/model", revision)}
    assert "*.safetensors" in fake.patterns
    assert not {"*.bin", "*.pth", "*.pt"} & set(fake.patterns)


@torch.inference_mode()
def test_a_model_of_transformers(fake: FakeHub) -> None:
    theirs = transformers_model("mit_b0", 4)
    theirs.save_pretrained(fake.folder)
    loaded = segformer.load("someone/model")
    images = torch.randn(1, 3, 64, 64)
    assert relative_difference(loaded(images), theirs(images).logits) < 1e-5
    assert loaded.card.provenance["source"] == "someone/model"


def test_pickles_are_taken_where_there_is_nothing_else(fake: FakeHub, model: Segmenter) -> None:
    save(model, fake.folder)
    (fake.folder / "model.safetensors").rename(fake.folder / "other.bin")
    with pytest.raises(UserError):
        segformer.load("someone/model")
    assert "*.bin" in fake.patterns


def test_the_cache_is_used_where_the_list_can_not_be_had(fake: FakeHub, model: Segmenter) -> None:
    save(model, fake.folder)
    fake.list_error = huggingface_hub.errors.OfflineModeIsEnabled("offline")
    assert segformer.load("someone/model").card == model.card


def test_a_folder_wins_over_the_hub(model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", forbidden)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", forbidden)
    monkeypatch.chdir(tmp_path)
    save(model, "someone/model")
    assert segformer.load("someone/model").card == model.card


def test_push_writes_a_model_folder(model: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[dict[str, Any]] = []

    class FakeApi:
        def __init__(self, **_: object) -> None:
            pass

        def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
            uploads.append({"repo_id": repo_id, **options})
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, folder_path: Path, **options: Any) -> str:
            shutil.copytree(folder_path, tmp_path / "uploaded")
            uploads.append(options)
            return "https://huggingface.co/someone/model/commit/1"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", FakeApi)
    url = push_to_hub(model, "someone/model", private=True, commit_message="first")
    assert url == "https://huggingface.co/someone/model/commit/1"
    created, uploaded = uploads
    assert (created["repo_id"], created["private"]) == ("someone/model", True)
    assert (uploaded["repo_id"], uploaded["commit_message"]) == ("someone/model", "first")
    names = {path.name for path in (tmp_path / "uploaded").iterdir()}
    assert {"config.json", "model.safetensors"} <= names <= {"config.json", "model.safetensors", "README.md"}
    loaded = segformer.load(tmp_path / "uploaded")
    assert loaded.card == model.card
    assert torch.equal(loaded.state_dict()["decoder.fuse.weight"], model.state_dict()["decoder.fuse.weight"])


needs_the_hub = pytest.mark.skipif(
    os.environ.get("SEGFORMER_HUB_TESTS") != "1", reason="downloads from the hub; set SEGFORMER_HUB_TESTS=1"
)


@needs_the_hub
@pytest.mark.parametrize(
    "name", ["nvidia/segformer-b0-finetuned-ade-512-512", "nvidia/segformer-b1-finetuned-cityscapes-1024-1024"]
)
@torch.inference_mode()
def test_logits_of_the_release(name: str, shared_data: Path) -> None:
    folder = shared_data / "hf_fixture"
    expected = json.loads((folder / "expected_logits.json").read_text())[name]
    loaded = segformer.load(name)
    photo = Image.open(folder / "000000039769.png").convert("RGB").resize((512, 512), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None]
    logits = loaded(loaded.normalize(pixels))
    assert logits.shape[2:] == (128, 128)
    torch.testing.assert_close(logits[0, :3, :3, :3], torch.tensor(expected["slice"]), rtol=1e-4, atol=expected["atol"])


@needs_the_hub
@torch.inference_mode()
def test_logits_of_smp() -> None:
    loaded = segformer.load("smp-hub/segformer-b0-512x512-ade-160k")
    logits = F.interpolate(loaded(torch.ones(1, 3, 512, 512)), scale_factor=4, mode="bilinear", align_corners=True)
    expected = torch.tensor([-4.4172, -4.4723, -4.5273, -4.5824, -4.6375, -4.7157])
    torch.testing.assert_close(logits[0, 0, 256, :6], expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("door", [segformer.load, segformer.from_pretrained])
def test_the_options_of_the_hub_are_passed_on(door: Any, model: Segmenter, fake: FakeHub) -> None:
    save(model, fake.folder)
    options = {"token": "secret", "cache_dir": "elsewhere", "local_files_only": True, "force_download": False}
    loaded = door("someone/model", revision="v2", **options)
    assert loaded.card == model.card
    assert fake.asked == [("someone/model", "v2"), ("someone/model", "v2")]
    assert fake.options == options


def test_an_error_of_ours_is_not_taken_for_one_of_the_hub(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a bug")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(AssertionError, match="a bug"):
        segformer.load("someone/model")
