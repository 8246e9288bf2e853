"""The table of all checks that look for faults in a data set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from segformer.data.doctor.duplicate_checks import check_duplicates, check_near_duplicates, check_shared_files
from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.file_checks import check_channels, check_damage, check_partners, check_sizes
from segformer.data.doctor.findings import Finding
from segformer.data.doctor.label_checks import check_labels
from segformer.data.doctor.labels import Labels
from segformer.data.doctor.mask_checks import check_colors, check_jpeg

Check = Callable[[Sequence[SampleFacts], Labels], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "partners": check_partners,
    "damage": check_damage,
    "sizes": check_sizes,
    "colors": check_colors,
    "jpeg": check_jpeg,
    "labels": check_labels,
    "shared_files": check_shared_files,
    "duplicates": check_duplicates,
    "near_duplicates": check_near_duplicates,
    "channels": check_channels,
}
"""Each check looks at all samples and yields findings.  Errors are reported before warnings, each in this order."""


def find_faults(samples: Sequence[SampleFacts], labels: Labels) -> list[Finding]:
    """Run all checks and return their findings, errors first."""
    found = [finding for check in CHECKS.values() for finding in check(samples, labels)]
    if any(sample.drawn for sample in samples):  # there are no files that a command could change
        found = [replace(finding, command="") for finding in found]
    return sorted(found, key=lambda finding: finding.severity)
