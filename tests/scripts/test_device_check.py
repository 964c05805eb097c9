"""The check of a device runs to its end on a pretended one, and says what it came to."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("device_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_nothing_is_tried(tmp_path):
    result = subprocess.run([sys.executable, str(SCRIPT), "--out", str(tmp_path / "check")], capture_output=True, text=True)
    assert result.returncode == 1
    assert "no CUDA device here" in result.stderr
    assert not (tmp_path / "check").exists()


def test_a_part_ends_with_the_script(script, tmp_path):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 2)
        with pytest.raises(KeyboardInterrupt):
            script.run(command, tmp_path / "log", 50, dict(os.environ))
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text()), 0)


def test_a_part_that_failed_as_a_whole_is_a_failure(script):
    good = {"tests": {"status": 0}, "bench": {"results": {"plan": {"value": 1.0}}}, "mbpo": {"status": script.INTERRUPTED}}
    assert not script.failed(good)
    assert not script.failed({})
    for part in (
        {"tests": {"status": 1}},
        {"bench": {"results": {}}},
        {"bench": {"results": {"plan": {"error": "!"}}}},
        {"mbpo": {"status": 2}},
    ):
        assert script.failed(good | part)
    assert script.last_line("\n") == ""
