"""Too little memory is a sentence that names what was too large; other errors stay as they are."""

import pytest
import torch

from mbkit.errors import UserError
from mbkit.loops import memory, refuse_oversized


def test_refuse_oversized_names_what_needs_more_memory():
    with pytest.raises(UserError, match=r"^a batch needs more memory than the device has; expected less$"), refuse_oversized("a batch"):
        torch.empty(10**15)
    with pytest.raises(UserError, match="a list needs more memory"), refuse_oversized("a list"):
        raise MemoryError


MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.19 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 4000 bytes",
    "Storage size calculation overflowed with sizes=[1000000000000000000, 1000000000000000000]",
    "std::bad_alloc",
)
FAULTS = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA error: misaligned address",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    "CUDA error: invalid argument",
)
OTHERS = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory location",
    "unsupported memory format option Contiguous",
    "value cannot be converted to type int8_t without overflow",
    "Tensor was not allocated on this device",
)


@pytest.mark.parametrize("message", MEMORY)
def test_refuse_oversized_knows_every_wording(message):
    with pytest.raises(UserError, match="a batch needs more memory"), refuse_oversized("a batch"):
        raise RuntimeError(message)


@pytest.mark.parametrize("message", FAULTS)
def test_refuse_oversized_fault_of_the_gpu_is_no_lack_of_memory(message):
    with pytest.raises(RuntimeError, match=message[:30]) as caught, refuse_oversized("a batch"):
        raise torch.AcceleratorError(message)
    assert "a fault, not a lack of memory" in caught.value.__notes__[0]


@pytest.mark.parametrize("message", OTHERS)
def test_refuse_oversized_memory_in_another_sense_stays_as_it_is(message):
    with pytest.raises(RuntimeError, match=message[:30]) as caught, refuse_oversized("a batch"):
        raise RuntimeError(message)
    assert not hasattr(caught.value, "__notes__")


def test_refuse_oversized_leaves_other_errors_alone():
    with pytest.raises(RuntimeError, match="size"), refuse_oversized("a product"):
        torch.zeros(2) @ torch.zeros(3)
    with refuse_oversized("nothing"):
        pass


def test_available_is_what_the_system_and_its_container_leave(tmp_path, monkeypatch):
    here = memory.available("cpu")
    assert 1e8 < here.host == here.device
    limit = tmp_path / "memory.max"
    limit.write_text("5000000000\n")
    monkeypatch.setattr(memory, "LIMITS", [str(limit), str(tmp_path / "absent")])
    assert memory.available("cpu").host <= 5e9
    limit.write_text("max\n")
    assert memory.available("cpu").host == pytest.approx(memory._host(), rel=0.2)


def test_dominant_is_the_option_with_the_largest_value():
    assert memory.dominant({"loop.batch_size": 256, "agent.hidden": (8, 1000), "agent.critics": 2}) == ("agent.hidden", [8, 1000])
    assert memory.dominant({"loop.batch_size": 10**9, "agent.hidden": (0,)}) == ("loop.batch_size", 10**9)


def test_gigabytes_are_readable_at_any_size():
    assert [memory.gigabytes(x) for x in (5e7, 1.6e10, 7.2e13)] == ["0.05 GB", "16 GB", "72,000 GB"]
