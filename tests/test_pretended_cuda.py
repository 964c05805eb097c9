"""Every test marked `gpu` on a pretended CUDA device: what a GPU would refuse or wait for shows without one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pretended_cuda.library import compiler

TESTS = Path(__file__).parent
FILES = [path for path in sorted(TESTS.rglob("test_*.py")) if "mark.gpu\n" in path.read_text()]
PARTS = {"hot paths": [TESTS / "test_sync.py"], "the rest": [path for path in FILES if path.name != "test_sync.py"]}


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("part", PARTS)
def test_gpu_tests_pass_on_a_pretended_device(part):
    """In a process of its own, since torch asks for its devices when it is imported."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS / "support")]), "OMP_NUM_THREADS": "1"}
    options = ["-p", "pretended_cuda.plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "gpu", "--tb=short"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, PARTS[part])]
    result = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2000:]
    summary = result.stdout.strip().splitlines()[-1]
    assert re.search(r"[1-9]\d* passed", summary)
    assert "skipped" not in summary
