"""Run a script or module with a pretended CUDA device: `python -m pretended_cuda [-m MODULE | SCRIPT] [ARGUMENTS]`."""

import runpy
import sys
from pathlib import Path

from pretended_cuda.switch import start

start()
if sys.argv[1] == "-m":
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
