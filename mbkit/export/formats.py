"""Networks as files for other programs, `.onnx` or `.pt2` of torch.export: traced, written, read back and compared before they get a name.

Letters: B batch.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.paths import check_file, exists, short
from mbkit.storage import replacing

EXTRA = 'pip install "mbkit[onnx]"'
ROWS = 1000  # inputs on which a file is compared with its origin: half like those that it was trained on, half anywhere
TOLERANCE = 1e-5  # largest difference at numbers of at most 1
Outputs = Callable[..., Any]  # inputs [B, ...] -> the output, or a tuple of several


class Exported(NamedTuple):
    """A written file, and how it compares with its origin."""

    path: Path
    step: int | None  # of the checkpoint; None of a model
    difference: float  # largest, in the units of the output; of discrete actions: the share of other choices, ties apart
    replaced: bool  # whether there was a file of this name
    notes: tuple[str, ...] = ()  # what the user should know of the file


class Graph(NamedTuple):
    """A module in torch's own layers, and what its file needs."""

    module: nn.Module
    sample: tuple[Tensor, ...]  # two rows of each input
    inputs: tuple[str, ...]  # names
    outputs: tuple[str, ...]
    about: str  # JSON for programs
    culprit: str  # what messages say of what cannot be traced
    part: str


class FileFormat(NamedTuple):
    """A writer of traced graphs, and the reader of its files."""

    write: Callable[[torch.export.ExportedProgram, Graph], bytes]
    read: Callable[[bytes], Outputs]


def format_of(out: Path) -> FileFormat:
    """The format of a path; UserError for another suffix, a missing directory, or missing packages."""
    if out.suffix not in (".onnx", ".pt2"):
        raise UserError(f"{short(out)}: expected a path that ends in .onnx or .pt2, came {short(out.suffix) or 'none of them'}")
    check_file(out)
    if out.suffix == ".pt2":
        return FileFormat(write_pt2, read_pt2)
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"{out}: .onnx needs the package {' and '.join(missing)}: {EXTRA}; .pt2 needs none")
    return FileFormat(write_onnx, read_onnx)


def write(graph: Graph, out: Path, compared: Callable[[Outputs], float]) -> tuple[float, bool]:
    """Write a graph to `out`, unless `compared` raises UserError for the file's outputs -> its result, and whether a file was replaced."""
    file_format, replaced = format_of(out), exists(out)
    graph.module(*graph.sample)  # index tensors that networks make once must not be made while they are traced
    with quiet():
        content = file_format.write(traced(graph), graph)
        difference = compared(file_format.read(content))
    with replacing(out) as file:
        file.write(content)
    return difference, replaced


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """The module as a graph of torch's operators for any number of rows; UserError where a function of the user's cannot be traced."""
    rows = torch.export.Dim("batch", min=1)
    for strict in (False, True):  # the first is quicker and takes more, but counts len(obs) as a constant
        try:
            with torch.no_grad():
                return torch.export.export(graph.module, graph.sample, dynamic_shapes=tuple({0: rows} for _ in graph.sample), strict=strict)
        except Exception as error:  # whatever the tracers make of a user's agent, prior or preprocessing
            failure = error
    raise UserError(f"{graph.culprit} cannot be exported: torch.export cannot trace its {graph.part} ({first_line(failure)})") from failure


def first_line(error: BaseException) -> str:
    """Type and first line of an exception."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say of packages that are absent, and of their own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def write_pt2(program: torch.export.ExportedProgram, graph: Graph) -> bytes:
    """A file of torch.export, with the metadata as its extra file `mbkit.json`."""
    file = BytesIO()
    torch.export.save(program, file, extra_files={"mbkit.json": graph.about})
    return file.getvalue()


def read_pt2(content: bytes) -> Outputs:
    """The function in a file of `write_pt2`."""
    module = torch.export.load(BytesIO(content)).module()
    return lambda *inputs: module(*inputs)


def write_onnx(program: torch.export.ExportedProgram, graph: Graph) -> bytes:
    """An ONNX model with the graph's names of inputs and outputs, and the metadata under the key `mbkit`.

    Raises:
        UserError: an operator, of a function of the user's, that ONNX does not have.
    """
    names: dict[str, Any] = {"input_names": list(graph.inputs), "output_names": list(graph.outputs)}
    try:
        exported = torch.onnx.export(program, dynamo=True, **names, external_data=False, verbose=False)
    except torch.onnx.OnnxExporterError as error:
        said = f"{graph.culprit} cannot be exported as .onnx: ONNX lacks an operator of its {graph.part}"
        raise UserError(f"{said} ({first_line(error.__cause__ or error)}); .pt2 may do") from error
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    exported.model.metadata_props["mbkit"] = graph.about
    content: bytes = exported.model_proto.SerializeToString()
    return content


def read_onnx(content: bytes) -> Outputs:
    """The function in a file of `write_onnx`, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def outputs(*inputs: Tensor) -> Any:
        results = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
        return torch.from_numpy(results[0]) if len(results) == 1 else tuple(map(torch.from_numpy, results))

    return outputs
