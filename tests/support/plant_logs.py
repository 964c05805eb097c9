"""The example `examples/plant.py` as a module, and a function file of the form that it reads, with plants that are known exactly."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).parents[2]
FEEDBACK = np.array([[[1.2, 0.1], [0.0, 0.9]], [[-0.5, 0.0], [-0.1, -0.3]]])  # [2, P, P] weights of the last and of the second last outputs
INPUT = np.array([[[0.4, -0.2], [0.1, 0.3]], [[0.2, 0.0], [-0.1, 0.1]]])  # [2, P, A]


def example() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("plant", ROOT / "examples/plant.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linear_log(rows: int, lead: int = 0, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [T, 2] and outputs [T, 2] of an ARX system of order 2; with `lead` 1 a recorded input acts on the output of its own row."""
    draw = np.random.default_rng(seed)
    u, y = draw.uniform(-0.9, 0.9, (rows + 1, 2)), np.zeros((rows + 1, 2))
    for t in range(1, rows):
        y[t + 1] = sum(FEEDBACK[k] @ y[t - k] + INPUT[k] @ u[t - k] for k in (0, 1)) + 0.5 + noise * draw.normal(size=2)
    return u[:rows], y[lead : rows + lead]


def block(name: str, numbers: np.ndarray) -> str:
    """One of the function file's blocks."""
    lines = ["   ".join(f"{number:.17g}" for number in row) for row in numbers]
    return f"%! {name} = [ " + "\n%!       ".join(lines) + " ];\n%!\n"


def function_file(dryer_rows: int = 300, arm_rows: int = 400) -> str:
    """Its text: a program, then the blocks of three plants, of which the second is of no interest."""
    u, heat = np.random.default_rng(1).uniform(3.4, 6.4, dryer_rows), np.full(dryer_rows, 4.9)
    for t in range(1, dryer_rows - 1):
        heat[t + 1] = 1.1 * heat[t] - 0.4 * heat[t - 1] + 0.2 * u[t] + 0.1 * u[t - 1]
    text = "## -*- texinfo -*-\nfunction [sys] = moen4 (varargin)\n  Y = [1 2];\nendfunction\n\n%!shared SYS, Y\n"
    text += block("Y", heat.reshape(10, -1).T) + block("U", u.reshape(10, -1).T)
    text += "%! De = [ -0.0041 ];\n%!\n" + block("U", np.ones((4, 5))) + block("Y", np.ones((4, 3)))
    return text + block("UY", np.concatenate(linear_log(arm_rows, lead=1), 1)) + "%!assert (SYS.A, Ae, 1e-4);\n"
