"""pytest plugin: `python -m pytest -p pretended_cuda.plugin -m gpu` runs the tests that a GPU would run."""

from pretended_cuda.device import DEVICE
from pretended_cuda.switch import start


def pytest_configure() -> None:
    """There is a device in every test."""
    start()


def pytest_runtest_setup() -> None:
    """Each test counts for itself."""
    DEVICE.reset()
