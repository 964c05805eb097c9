"""Threads, precision, modes and seeds take effect, and saved random states are restored."""

import io
import platform
import random
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from mbkit.accelerate import accelerated, matmul_precision, mode_on, model_products, rng_state, seed_everything, set_rng_state, set_threads
from mbkit.errors import UserError

CPU = torch.device("cpu")


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def swap(x: Tensor, pair: Pair, nothing: None = None) -> Pair:
    return Pair(pair.right * x, pair.left + torch.randn_like(x))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_set_threads_sets_them_and_refuses_impossible_numbers():
    assert set_threads(1) == 1
    assert torch.get_num_threads() == 1
    assert set_threads(0) >= 1
    with pytest.raises(UserError, match="threads=-2"):
        set_threads(-2)
    cores = set_threads(0)
    assert set_threads(4 * cores) == 4 * cores
    with pytest.raises(UserError, match=f"threads={4 * cores + 1}: expected at most 4 for each of the {cores} cores"):
        set_threads(4 * cores + 1)


PAGE_FAULTS = """
import resource
import torch
from mbkit.accelerate import reuse_memory, set_threads
from mbkit.networks.mlp import EnsembleMLP

set_threads(1)
reuse_memory()
net, x = EnsembleMLP(8, (4, 128, 128, 2)), torch.randn(8, 256, 4)


def passes(n):
    for _ in range(n):
        torch.autograd.grad(net(x).sum(), list(net.parameters()))
        with torch.no_grad():
            net(x)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


print(-passes(10) + passes(40))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_freed_tensors_is_used_again():
    """In a fresh process; without `reuse_memory` the system hands out some 200 pages in each of 40 passes, with it a block at most."""
    faults = subprocess.run([sys.executable, "-c", PAGE_FAULTS], check=True, capture_output=True, text=True).stdout
    assert int(faults) < 40 * 50


def test_matmul_precision_is_restored_even_after_an_error():
    before = torch.get_float32_matmul_precision()
    with matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    with pytest.raises(UserError), matmul_precision("high"):
        set_threads(-1)
    assert torch.get_float32_matmul_precision() == before


def test_precision_auto_is_tf32_on_cuda_for_models_alone():
    cuda = torch.device("cuda")
    before = torch.get_float32_matmul_precision()
    with matmul_precision("auto"):
        assert torch.get_float32_matmul_precision() == "highest"
        for device, inside in ((CPU, "highest"), (cuda, "high")):
            with model_products(device):
                assert torch.get_float32_matmul_precision() == inside
            assert torch.get_float32_matmul_precision() == "highest"
    with matmul_precision("medium"), model_products(cuda):
        assert torch.get_float32_matmul_precision() == "medium"
    with model_products(cuda):
        assert torch.get_float32_matmul_precision() == before


def test_mode_auto_is_a_graph_on_cuda_alone():
    assert mode_on("auto", CPU) == "eager"
    assert mode_on("auto", torch.device("cuda")) == "cudagraph"
    assert mode_on("eager", torch.device("cuda")) == "eager"
    assert accelerated(swap, "auto", CPU) is swap


def test_accelerated_eager_is_the_function_itself():
    assert accelerated(swap, "eager", CPU) is swap


def test_accelerated_cudagraph_on_the_cpu_is_refused():
    with pytest.raises(UserError, match="needs device=cuda, got device=cpu"):
        accelerated(swap, "cudagraph", CPU)


@pytest.mark.slow
def test_accelerated_compile_equals_eager():
    def fn(x: Tensor) -> Pair:
        return Pair(x.sin() + 1, x.square().sum(-1))

    x = torch.randn(3, 4)
    torch.testing.assert_close(accelerated(fn, "compile", CPU)(x), fn(x))


@pytest.mark.gpu
def test_accelerated_cudagraph_draws_the_random_numbers_of_eager_per_shape():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    graphed = accelerated(swap, "cudagraph", torch.device("cuda"))
    for rows in (3, 5, 3):
        x = torch.randn(rows, device="cuda")
        pair = Pair(x + 1, x * 2)
        state = torch.cuda.get_rng_state()
        expected = swap(x, pair), swap(x, pair)
        torch.cuda.set_rng_state(state)
        actual = graphed(x, pair, None), graphed(x, pair, None)
        torch.testing.assert_close(actual, expected)
        assert not torch.equal(actual[0].right, actual[1].right)


def draw():
    return random.random(), np.random.rand(), np.random.randn(), random.gauss(0, 1), torch.rand(2).tolist()


def test_seed_everything_fixes_all_random_numbers():
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_everything_out_of_range_is_refused(seed):
    with pytest.raises(UserError, match=f"seed={seed}"):
        seed_everything(seed)


def test_rng_state_survives_a_file_read_without_pickle():
    seed_everything(3)
    draw()  # leaves half a pair of normals in Python's and NumPy's state
    file = io.BytesIO()
    torch.save(rng_state(), file)
    expected = draw()
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True))
    assert draw() == expected
