"""Diagnosis of a data set before training: its contents, its faults, and training options that suit it.

A folder in the generic layout (images/ and masks/) is read file by file, so that one fault does not hide the others.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segformer.config import DataConfig
from segformer.data.dataset import DataSource
from segformer.data.doctor.contents import Split, balance, channel_statistics, count_split, five_digits
from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.faults import find_faults
from segformer.data.doctor.findings import Finding
from segformer.data.doctor.items import Survey
from segformer.data.doctor.labels import Labels
from segformer.data.doctor.observing import is_raw, observe
from segformer.data.doctor.survey import Data, as_config, in_order, survey
from segformer.data.sources.description import DESCRIPTION
from segformer.data.sources.folder_pairs import IMAGES, MASKS
from segformer.resumable import OnProgress

RARE_CROP = 0.5  # suggested if there are rare classes


@dataclass(frozen=True)
class Diagnosis:
    """Contents and faults of a data set, and training options that suit it."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    findings: tuple[Finding, ...]
    """Faults that were found, errors first."""
    class_weights: tuple[float, ...] | None
    """Suggested weights of the classes (see ``balanced_weights``); None without labeled pixels or two classes."""
    rare: tuple[str, ...]
    """Classes that make up less than 1 % of the labeled pixels in the training split."""
    mean: tuple[float, ...]
    """Mean of each channel in the training split; empty if nothing was decoded or the numbers of channels differ."""
    std: tuple[float, ...]
    """Standard deviation of each channel in the training split; empty if ``mean`` is empty."""
    raw: bool
    """Whether the training images would lose information if they were read as 8-bit RGB."""
    notes: tuple[str, ...]
    """Notes for the user about how the data set was read."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that would stop the training, or make it learn from wrong labels."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ready(self) -> bool:
        """Whether there are no errors.  Warnings do not count, because only the owner of the data can judge them."""
        return not self.errors

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Options of ``segformer train`` that suit the data."""
        found = []
        if self.class_weights is not None:
            found.append("--train.class-weights " + " ".join(f"{weight:.2f}" for weight in self.class_weights))
        if self.rare:
            found.append(f"--data.rare-crop {RARE_CROP}")
        if self.raw and self.mean:
            mean, std = five_digits(self.mean), five_digits(self.std)
            statistics = f"--preprocessing.mean {mean} --preprocessing.std {std}"
            found.append(f"--model.in-channels {len(self.mean)} --preprocessing.pixels raw {statistics}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        splits = {name: split.to_json() for name, split in self.splits.items()}
        return asdict(replace(self, splits={})) | {
            "splits": splits,
            "ready": self.ready,
            "suggestions": list(self.suggestions),
        }


def diagnose(data: Data, *, cheap: bool = False, progress: OnProgress | None = None) -> Diagnosis:
    """Examine every file of a data set, given as a folder, a value of ``--data``, a DataConfig or a DataSource.

    With ``cheap``, files are not decoded: only missing partners, headers, sizes and color modes are checked.  Raises a
    UserError if the data set cannot be opened at all; every other fault becomes a finding.
    """
    config = as_config(data)
    found = survey(data)
    samples = []
    for done, item in enumerate(in_order(found.items), start=1):
        samples.append(observe(item, cheap))
        if progress is not None:
            progress(done, len(found.items))
    labels = find_labels(found, samples)
    splits = {name: count_split(samples, name, labels) for name in dict.fromkeys(s.split for s in samples)}
    findings = find_faults(samples, labels)
    if not any(finding.kind == "layout" for finding in found.findings):
        if not isinstance(data, DataSource):
            findings += missing_splits(config, splits)
        findings += missing_classes(labels, findings)
    findings = [with_lists(finding, found, splits) for finding in findings]
    findings = sorted([*found.findings, *findings], key=lambda finding: finding.severity)
    weights, rare = balance(splits.get(config.train_split), labels.classes)
    mean, std = channel_statistics([sample for sample in samples if sample.split == config.train_split])
    raw = any(map(is_raw, splits[config.train_split].channels)) if config.train_split in splits else False
    return Diagnosis(
        found.name, labels.classes, splits, tuple(findings), weights, rare, mean, std, raw, notes=found.notes
    )


def find_labels(found: Survey, samples: Sequence[SampleFacts]) -> Labels:
    """Return the labels of a data set; if its classes are not described, they are counted in the masks."""
    if found.table is None:
        return Labels.from_masks(samples)
    return Labels(found.table, found.classes, False, in_description=(Path(found.name) / DESCRIPTION).is_file())


def missing_splits(config: DataConfig, splits: dict[str, Split]) -> list[Finding]:
    """Return one finding for each split that training needs but that is missing or empty."""
    wanted = {"train": config.train_split, "val": config.val_split}
    return [
        Finding(
            "layout",
            "error",
            (),
            f"no images in the split '{name}'; found {', '.join(splits) or 'none'}",
            f"add {IMAGES}/{name} and {MASKS}/{name}, or choose another split with --data.{option}-split",
        )
        for option, name in wanted.items()
        if name not in splits or not splits[name].num_images
    ]


def missing_classes(labels: Labels, findings: Sequence[Finding]) -> list[Finding]:
    """Return a finding if fewer than two classes were counted in the masks and no other finding explains why."""
    explained = any(finding.kind == "binary_mask" for finding in findings)
    if not labels.counted or labels.table is None or len(labels.classes) >= 2 or explained:
        return []
    problem = "expected at least two classes in the masks, found only 0 and 255 (ignored)"
    fix = f"label more classes in the masks, or describe the classes in {DESCRIPTION}"
    return [Finding("layout", "error", (), problem, fix)]


def with_lists(finding: Finding, found: Survey, splits: dict[str, Split]) -> Finding:
    """If a finding's command deletes files, add to its fix that the split lists must no longer name these files."""
    lists = [f"{name}.txt" for name in splits if (Path(found.name) / f"{name}.txt").is_file()]
    if not lists or not finding.command.startswith("rm "):
        return finding
    return replace(finding, fix=f"{finding.fix}; remove their lines from {', '.join(lists)} too")
