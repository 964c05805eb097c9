"""The check of a device runs to its end on a pretended one, and says what it came to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pretended_cuda.library import compiler

SCRIPT = Path(__file__).parents[2] / "scripts" / "device_check.py"


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_all_parts_run_on_a_pretended_device(tmp_path):
    command = [sys.executable, str(SCRIPT), "--pretend", "--seconds", "400", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    results = json.loads((tmp_path / "device_check.json").read_text())
    assert results["machine"].startswith("pretended")
    assert results["tests"]["passed"] >= 5
    assert not results["tests"]["failures"]
    assert results["bench"]["results"]["update sac cudagraph"]["value"] > 0
    assert results["mbpo"]["status"] == 0
    assert results["mbpo"]["steps"] == 14
    report = (tmp_path / "device_check.md").read_text()
    assert report == result.stdout[result.stdout.index("# Check of a device") :].rstrip("\n") + "\n"
    assert "| update sac cudagraph |" in report
    assert "14 steps in" in report
