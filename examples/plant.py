"""From the log of a plant to a dynamics model for other programs, beside least squares: `python examples/plant.py FOLDER`.

Two plants that were measured in reality lie inside a Debian package: a hair dryer of a laboratory (1000 rows, one input, one output) and
the arm of a CD player (2048 rows, two inputs, two outputs), both from DaISy, the database for the identification of systems of KU Leuven.
The package is downloaded by `apt-get`, its numbers are written to FOLDER as CSV, and nothing of it is part of mbkit. Then, for each plant:

    mbkit data convert    the first 70 % of the rows, observed as the last K outputs and the K - 1 inputs between them
    mbkit dynamics fit    an ensemble, for each seed
    mbkit export          the ensemble as an ONNX model, which is all that is used of it from here on

and on the last 30 % its open-loop errors beside those of an ARX model of the same order, fitted by least squares to the same rows.
`docs/plant.md` tells the same step by step. Letters: T rows, B starts, P outputs, A inputs, K order, O = K P + (K - 1) A.
"""

import argparse
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Predict = Callable[[Array, Array], Array]  # obs [B, O], inputs [B, A] -> next outputs [B, P], or the next observation [B, O]

PACKAGE, FUNCTION = "octave-control", "moen4.m"
TRAIN = 0.7  # share of the rows that is fitted to
HORIZONS = (1, 10, 50)  # steps


class Plant(NamedTuple):
    """How the log of a plant is read, and what is fitted to it."""

    inputs: int  # A
    low: str  # bounds of the inputs
    high: str
    lead: int  # rows by which inputs are written earlier than they were recorded; see `table`
    order: int  # K
    fit: tuple[str, ...]  # options of `mbkit dynamics fit`


SMALL = ("dynamics.hidden=[64]", "dynamics.probabilistic=false", "dynamics.bootstrap=false", "dynamics.patience=20")
PLANTS = {
    "hair_dryer": Plant(inputs=1, low="3", high="7", lead=0, order=10, fit=SMALL),
    "cd_arm": Plant(inputs=2, low="-1,-4", high="1,4", lead=1, order=16, fit=SMALL),
}


# --- the record -----------------------------------------------------------------------------------------------------------------------


def download() -> str:
    """The text of the function file in the newest package that `apt-get` offers."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        sys.exit(f"plant.py: expected apt-get and dpkg (Debian, Ubuntu); elsewhere --file names the {FUNCTION} of Octave's package control")
    with tempfile.TemporaryDirectory() as folder:
        for command in (f"apt-get download {PACKAGE}", f"dpkg -x {PACKAGE}*.deb ."):
            done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"plant.py: {command} failed: {done.stderr.strip()}")
        files = list(Path(folder).rglob(FUNCTION))
        if not files:
            sys.exit(f"plant.py: expected {FUNCTION} in the package {PACKAGE}, got none")
        return files[0].read_text()


def records(text: str) -> dict[str, tuple[Array, Array]]:
    """Inputs [T, A] and outputs [T, P] of both plants, from the test data at the end of the function file."""
    blocks: dict[str, Array] = {}
    for name, body in re.findall(r"^%! (Y|U|UY) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL):
        blocks.setdefault(name, matrix(body))  # a third plant's Y and U come later
    if len(blocks) < 3:
        sys.exit(f"plant.py: expected the blocks Y, U and UY in {FUNCTION}, got {' and '.join(blocks) or 'none'}")
    dryer_y, dryer_u, arm = (blocks[name] for name in ("Y", "U", "UY"))
    column_by_column = dryer_u.reshape(-1, 1, order="F"), dryer_y.reshape(-1, 1, order="F")
    return {"hair_dryer": column_by_column, "cd_arm": (arm[:, :2], arm[:, 2:])}


def matrix(body: str) -> Array:
    """Rows of numbers, each behind a comment's `%!`."""
    lines = (line.replace("%!", "").split() for line in body.splitlines())
    return np.array([[float(number) for number in line] for line in lines if line])


def table(inputs: Array, outputs: Array, lead: int) -> tuple[list[str], list[list[str]]]:
    """Names and cells of a table whose rows hold what was measured, and the input that was applied from then on.

    Where the recorded input of a row acts on the output of that very row already (`lead` 1), it was applied before the output was
    measured: it belongs to the row before.
    """
    inputs, outputs = inputs[lead:], outputs[: len(outputs) - lead]
    train = round(TRAIN * len(outputs))
    names = [f"y{n + 1}" for n in range(outputs.shape[1])] + [f"u{n + 1}" for n in range(inputs.shape[1])] + ["part"]
    rows = zip(outputs.tolist(), inputs.tolist(), strict=True)
    return names, [[*map(repr, y), *map(repr, u), "train" if n < train else "test"] for n, (y, u) in enumerate(rows)]


def write_csv(path: Path, names: list[str], rows: list[list[str]]) -> None:
    """The table as text."""
    path.write_text("".join(",".join(cells) + "\n" for cells in [names, *rows]))


def read_csv(path: Path, part: str) -> tuple[Array, Array]:
    """Inputs [T, A] and outputs [T, P] of one part of a table of `table`."""
    names, *rows = (line.split(",") for line in path.read_text().splitlines())
    numbers = np.array([[float(cell) for cell in row[:-1]] for row in rows if row[-1] == part])
    outputs = sum(name.startswith("y") for name in names)
    return numbers[:, outputs:], numbers[:, :outputs]


# --- the chain ------------------------------------------------------------------------------------------------------------------------


def commands(folder: Path, name: str, plant: Plant, outputs: int, seed: int, more: Sequence[str] = ()) -> list[list[str]]:
    """The arguments of `mbkit` from the table to the exported model."""
    columns = [",".join(f"{letter}{n + 1}" for n in range(count)) for letter, count in (("y", outputs), ("u", plant.inputs))]
    data, model = folder / f"{name}.h5", folder / f"{name}-{seed}"
    read = ["--obs", columns[0], "--action", columns[1], "--low", plant.low, "--high", plant.high, "--episode", "part"]
    return [
        ["data", "convert", f"{folder / name}.csv", str(data), *read, "--history", str(plant.order), "--episodes", "0:1"],
        ["dynamics", "fit", str(data), "--out", f"{model}.pt", f"seed={seed}", *plant.fit, *more],
        ["export", f"{model}.pt", "--out", f"{model}.onnx"],
    ]


def run(arguments: list[str]) -> None:
    """One command, shown and executed."""
    print(f"$ mbkit {shlex.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", "mbkit", *arguments], check=False).returncode:
        sys.exit("plant.py: the command failed")


def exported(path: Path) -> Predict:
    """The next observation [B, O] by an exported model, whose file alone is needed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def predict(obs: Array, inputs: Array) -> Array:
        (next_obs,) = session.run(["next_obs"], {"obs": obs.astype(np.float32), "action": inputs.astype(np.float32)})
        return np.asarray(next_obs, np.float64)

    return predict


# --- models of outputs ----------------------------------------------------------------------------------------------------------------


def histories(inputs: Array, outputs: Array, order: int) -> Array:
    """What `mbkit data convert --history K` observes at the rows K - 1 to T - 1, [T - K + 1, O]: the newest first."""
    rows = np.arange(order - 1, len(outputs))
    return np.concatenate([outputs[rows - k] for k in range(order)] + [inputs[rows - k] for k in range(1, order)], 1)


def shifted(obs: Array, inputs: Array, outputs: Array, order: int) -> Array:
    """The observation that follows obs [B, O] under inputs [B, A] if the next outputs are [B, P]: all else is known and only moves on."""
    past, old = outputs.shape[1] * (order - 1), outputs.shape[1] * order
    lags = [outputs, obs[:, :past], inputs, obs[:, old : obs.shape[1] - inputs.shape[1]]]
    return np.concatenate(lags if order > 1 else lags[:1], 1)


def least_squares(inputs: Array, outputs: Array, order: int) -> Predict:
    """The next outputs [B, P] by an ARX model with a constant: linear in the last K outputs and the last K inputs."""
    obs = histories(inputs, outputs, order)[:-1]
    regressors = np.concatenate((obs, inputs[order - 1 : -1], np.ones((len(obs), 1))), 1)
    weights = np.linalg.lstsq(regressors, outputs[order:], rcond=None)[0]
    return lambda obs, inputs: np.concatenate((obs, inputs, np.ones((len(obs), 1))), 1) @ weights


def largest_pole(predict: Predict, inputs: int, outputs: int, order: int) -> float:
    """The largest modulus of the poles of a linear model; above 1 its rollouts grow without bound."""
    size = outputs * order + inputs * (order - 1)
    obs = np.concatenate((np.zeros((1, size)), np.eye(size)))
    none = np.zeros((size + 1, inputs))
    following = shifted(obs, none, predict(obs, none), order)
    return float(np.abs(np.linalg.eigvals(following[1:] - following[0])).max())


def open_loop(predict: Predict, inputs: Array, outputs: Array, order: int, shift: bool = True) -> list[float]:
    """The error after each of HORIZONS steps from every row on, under the recorded inputs: root mean square over rows and outputs.

    Errors are in standard deviations of each output. `shift`: of the prediction only the newest outputs are taken, the rest moves on
    exactly; else the whole predicted observation is the next one.
    """
    obs = histories(inputs, outputs, order)[: len(outputs) - order + 1 - max(HORIZONS)]
    rows, width = np.arange(order - 1, order - 1 + len(obs)), outputs.shape[1]
    errors = []
    for step in range(1, max(HORIZONS) + 1):
        applied = inputs[rows + step - 1]
        prediction = predict(obs, applied)
        obs = shifted(obs, applied, prediction[:, :width], order) if shift else prediction
        if step in HORIZONS:
            errors.append(float(np.sqrt(np.mean(((obs[:, :width] - outputs[rows + step]) / outputs.std(0)) ** 2))))
    return errors


# --- all of it ------------------------------------------------------------------------------------------------------------------------


def compare(folder: Path, name: str, plant: Plant, seeds: Sequence[int], more: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """Fit, export and compare one plant; lines of the table."""
    (u, y), (test_u, test_y) = (read_csv(folder / f"{name}.csv", part) for part in ("train", "test"))
    linear = least_squares(u, y, plant.order)
    pole = largest_pole(linear, plant.inputs, y.shape[1], plant.order)
    print(f"{name}: the largest pole of the ARX model has modulus {pole:.2f}")
    arx = open_loop(linear, test_u, test_y, plant.order)
    errors: dict[bool, list[list[float]]] = {True: [], False: []}
    for seed in seeds:
        convert, *rest = commands(folder, name, plant, y.shape[1], seed, more)
        for command in rest if seed != seeds[0] else (convert, *rest):
            run(command)
        model = exported(folder / f"{name}-{seed}.onnx")
        for shift, measured in errors.items():
            measured.append(open_loop(model, test_u, test_y, plant.order, shift))
    label = f"{name}, order {plant.order}"
    lines = [(f"{label}: ARX, least squares", [f"{error:.3g}" for error in arx])]
    for shift, measured in errors.items():
        columns = list(zip(*measured, strict=True))
        cells = [f"{statistics.median(column):.3f} ({min(column):.3f} to {max(column):.3f})" for column in columns]
        lines.append((f"{label}: ensemble, {'lags moved on' if shift else 'lags predicted too'}", cells))
    return lines


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where tables, models and data sets are written")
    parser.add_argument("--file", type=Path, help=f"a {FUNCTION} at hand, instead of the download")
    parser.add_argument("--plants", nargs="+", choices=PLANTS, default=list(PLANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--order", type=int, help="K, instead of the plant's own")
    parser.add_argument("--lead", type=int, choices=(0, 1), help="rows by which inputs are written earlier, instead of the plant's own")
    parser.add_argument("--csv", action="store_true", help="write the tables only")
    parser.add_argument("--fit", nargs="+", default=[], metavar="KEY=VALUE", help="options of `mbkit dynamics fit` behind the plant's own")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Tables, and unless they are all that is wanted, the comparison."""
    args = options(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    record = records(args.file.read_text() if args.file else download())
    chosen = {key: value for key, value in (("order", args.order), ("lead", args.lead)) if value is not None}
    plants = {name: PLANTS[name]._replace(**chosen) for name in args.plants}
    for name, plant in plants.items():
        names, rows = table(*record[name], plant.lead)
        write_csv(args.folder / f"{name}.csv", names, rows)
        print(f"{args.folder / name}.csv: {len(rows)} rows of {', '.join(names)}")
    if args.csv:
        return
    lines = [line for name, plant in plants.items() for line in compare(args.folder, name, plant, args.seeds, args.fit)]
    heads = [f"{horizon} step{'s' * (horizon > 1)}" for horizon in HORIZONS]
    print(f"\n| open-loop error | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    print("\n".join(f"| {label} | {' | '.join(cells)} |" for label, cells in lines))


if __name__ == "__main__":
    main()
