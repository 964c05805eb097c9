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
RUNS = TESTS / "run" / "test_on_cuda.py"
PARTS = {"runs": [RUNS], "the rest": [path for path in FILES if path != RUNS]}


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("part", PARTS)
def test_gpu_tests_pass_on_a_pretended_device(part):
    run_pretended(PARTS[part], "gpu and not slow")


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_slow_gpu_tests_pass_on_a_pretended_device():
    run_pretended(FILES, "gpu and slow")


def run_pretended(files: list[Path], marks: str) -> None:
    """Tests in a process of their own, since torch asks for its devices when it is imported."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS / "support")]), "OMP_NUM_THREADS": "1"}
    options = ["-p", "pretended_cuda.plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", marks, "--tb=short"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    result = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2000:]
    summary = result.stdout.strip().splitlines()[-1]
    assert re.search(r"[1-9]\d* passed", summary)
    assert "skipped" not in summary
