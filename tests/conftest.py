"""What all tests share: one thread each, no deadlines on noisy machines, GPU tests only where there is one."""

import os
import sys
from typing import Any

import pytest
import torch
from hypothesis import settings

from mbkit.dynamics.ensemble import Ensemble

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)  # tests run side by side, and too many threads are slower than one
settings.register_profile("mbkit", deadline=None)
settings.load_profile("mbkit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture
def pretended_device() -> Any:
    """The pretended CUDA device, which counts; a real one does not say what it waited for."""
    module = sys.modules.get("pretended_cuda.device")
    if module is None:
        pytest.skip("needs the pretended CUDA device")
    return module.DEVICE


@pytest.fixture
def broken_after_its_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensembles whose weights become NaN as soon as they are fitted."""
    fit = Ensemble.fit

    def breaking(model, data):
        metrics = fit(model, data)
        with torch.no_grad():
            model.network.net.bias[0].fill_(torch.nan)
        model.refresh()
        return metrics

    monkeypatch.setattr(Ensemble, "fit", breaking)
