"""Kernels are counted on the pretended device, and predict a time."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pretended_cuda.library import compiler

SCRIPT = Path(__file__).parents[2] / "scripts" / "count_kernels.py"


def test_flops_and_predictions_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("count_kernels", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    products = [("aten.mm.default", [(2, 3), (3, 5)]), ("aten.baddbmm.default", [(4, 1, 5), (4, 2, 3), (4, 3, 5)])]
    trace = [*products, ("aten.add.Tensor", [(2,)])]
    assert script.flops(trace) == 2 * 2 * 3 * 5 + 4 * 2 * 2 * 3 * 5
    assert script.predicted(100, 0, 40) == pytest.approx((0.55, 0.18))
    assert script.predicted(1, 40e9, 40) == pytest.approx((1.0018, 1.0018))


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_kernels_of_an_actor_are_counted():
    command = [sys.executable, str(SCRIPT), "--only", "act, SAC", "--markdown"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    *_, row = result.stdout.strip().splitlines()
    name, kernels, *_ = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "act, SAC"
    assert 8 <= int(kernels) <= 40  # three products and their biases, a sample, tanh
