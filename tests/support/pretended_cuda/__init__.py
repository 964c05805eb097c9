"""A pretended CUDA device on a CPU build of torch: true numbers, tensors with `device=cuda`, CUDA graphs by recording.

    PYTHONPATH=tests/support python -m pytest -p pretended_cuda.plugin -m gpu tests

A tensor on the device wraps a CPU tensor, so that Python and C++ see `device=cuda` and take the branches meant for CUDA. What a real
device would refuse raises an error here: an operator on tensors of two devices, `numpy()`, and inside a capture whatever waits for the host
or copies pageable memory. What a real device would wait for is counted, and raises an error under `set_sync_debug_mode("error")`.

A captured graph is the list of its operators, and `replay` calls them again on the same memory. As on a GPU a capture computes nothing:
what it wrote is rolled back and new memory is filled with NaN, so that reading it before a replay shows. A graph that uses memory which
nobody else holds any more raises an error at its replay, and a copy that does not block arrives when it has been waited for.

Not covered: limits of real kernels, their speed and their rounding (TF32), several streams at once, memory pools.

This package must be imported before torch, which asks only once for its devices: `library` compiles (C++) and loads what answers.
"""

import sys

from pretended_cuda import library

if "torch" not in sys.modules:
    library.load()
