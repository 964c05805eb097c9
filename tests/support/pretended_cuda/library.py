"""A shared library that tells torch of a CUDA device. Autograd and torch's C++ parts ask it; it computes nothing."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

COMPILERS = ("g++", "clang++", "c++")
SOURCE = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace at {
struct CUDAHooks : public CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  bool isPinnedPtr(const void*) const override { return false; }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}
namespace {
using namespace c10;
struct Guard final : public impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device exchangeDevice(Device) const override { return Device(DeviceType::CUDA, 0); }
  Device getDevice() const override { return Device(DeviceType::CUDA, 0); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, Device(DeviceType::CUDA, 0)); }
  Stream exchangeStream(Stream s) const noexcept override { return s; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);
}
"""


def compiler() -> str | None:
    """The C++ compiler of this machine, if it has one."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


loaded = False


def load() -> None:
    """Compile the library once for each version of torch, and load it; before torch is imported."""
    global loaded
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torch is not installed")
    root = Path(spec.submodule_search_locations[0])
    name = f"pretended-cuda-{os.getuid()}-py{sys.version_info.minor}-torch{version('torch').replace('+', '-')}.so"
    library = Path(tempfile.gettempdir()) / name
    if not library.exists():
        build(root, library)
    for part in ("torch_global_deps", "c10", "torch_cpu"):
        ctypes.CDLL(f"{root}/lib/lib{part}.so", mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    loaded = True


def build(root: Path, library: Path) -> None:
    """Compile the library beside its place and move it there, since two processes may do so at once."""
    program = compiler()
    if program is None:
        raise ImportError(f"the pretended CUDA device needs a C++ compiler ({', '.join(COMPILERS)}), and there is none")
    source, result = (library.with_suffix(f".{os.getpid()}{suffix}") for suffix in (".cpp", ".so"))
    source.write_text(SOURCE)
    options = ["-std=c++20", "-O0", "-w", "-shared", "-fPIC", f"-I{root}/include", f"-L{root}/lib", "-lc10", "-ltorch_cpu"]
    subprocess.run([program, str(source), *options, "-o", str(result)], check=True)
    os.replace(result, library)
    source.unlink()
