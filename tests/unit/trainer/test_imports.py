"""What a training pod imports before it reads: the heavy libraries come while the store is waited for."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_heavy_is_imported_before_the_data_is_read() -> None:
    program = (
        "import sys, truekeep.trainer.run; "
        "print(*sorted({'sklearn', 'scipy', 'skops', 'onnx', 'onnxruntime', 'boto3', 'lightgbm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
