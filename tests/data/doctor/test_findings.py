import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from planted_faults import binary_mask, off_by_one
from segformer.data.doctor.diagnosis import diagnose


@pytest.mark.parametrize("plant", [binary_mask, off_by_one])
def test_the_command_of_a_fix_fixes_it(small_data, plant):
    plant(small_data)
    for finding in diagnose(small_data).findings:
        program, *arguments = shlex.split(finding.command)
        assert program == "python"
        files = [str(path) for pattern in arguments[2:] for path in sorted(Path("/").glob(pattern.lstrip("/")))]
        subprocess.run([sys.executable, *arguments[:2], *files], check=True)
    assert diagnose(small_data).findings == ()
