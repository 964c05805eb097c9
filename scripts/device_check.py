"""What only a GPU can tell, in one go on a machine with torch and no network: `python scripts/device_check.py --out check`.

Three parts: the tests marked `gpu`; updates, plans, fits and rollouts beside mbrl-lib, eager and with CUDA graphs; and MBPO on Hopper with
the paper's settings for the seconds left. Writes `device_check.json`, `device_check.md` and a log of each part into the folder `--out`.
Packages that the machine lacks are taken from the wheels in `.carry/`, which `scripts/carry.sh` gathers. `--pretend` tries all of it, in
tiny sizes, on a pretended device.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WHEELS, SUPPORT = ROOT / ".carry", ROOT / "tests" / "support"
NEEDED = ("mujoco", "gymnasium", "omegaconf", "mbrl")
SHARES = {"tests": 150.0, "bench": 190.0, "mbpo": 600.0}  # seconds of each part at most
MBPO = ["env=Hopper-v5", "preset=paper", "device=cuda", "seed=1"]
MBPO += ["eval.every=2500", "eval.episodes=3", "eval.video=false", "checkpoint.every=2500"]
TINY = ["env=Hopper-v5", "device=cuda", "eval.episodes=1", "eval.max_steps=2", "eval.video=false", "steps=14", "loop.log_every=5"]
TINY += ["loop.warmup_steps=10", "loop.fit_every=10", "loop.batch_size=8", "loop.updates_per_step=1", "agent.hidden=[8]", "threads=1"]
TINY += ["dynamics.hidden=[8]", "dynamics.max_epochs=1", "imagination.rollouts_per_step=2", "imagination.memory_gb=0.01"]
NO_DEVICE = "no CUDA device"
INTERRUPTED = 130  # exit status of the command line
TIMES = ("time/act_ms", "time/fit_seconds", "time/imagine_seconds", "model/epochs", "critic/loss")


def environment(pretend: bool) -> dict[str, str]:
    """Variables of the parts' processes; wheels are unpacked once where packages are missing."""
    paths = [str(ROOT), str(ROOT / "scripts"), *([str(SUPPORT)] if pretend else [])]
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        site = Path(tempfile.gettempdir()) / "mbkit-site"
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
        wheels = sorted(map(str, WHEELS.glob("*.whl")))
        if not wheels:
            needed = ", ".join(NEEDED)
            raise SystemExit(f"{needed} are needed, some are missing here, and {WHEELS} has no wheels: run scripts/carry.sh first")
        subprocess.run([*install, "--upgrade", "--target", str(site), *wheels], check=True)
        paths.append(str(site))
    more = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "MUJOCO_GL": "egl"} | ({"OMP_NUM_THREADS": "1"} if pretend else {})
    return os.environ | more | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}


def run(command: list[str], log: Path, seconds: float, variables: dict[str, str]) -> tuple[int, str]:
    """Exit status and output of a command that is interrupted after so many seconds, and killed 20 later, or with this process."""
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            for grace, stop in ((seconds, signal.SIGINT), (20.0, signal.SIGKILL)):
                try:
                    process.wait(grace)
                    break
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, stop)
        finally:
            if process.poll() is None:  # it would go on, in its session, where this process is stopped
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
    return status, log.read_text(errors="replace").replace("\r", "\n")


def python(pretend: bool, *arguments: str) -> list[str]:
    """A command line of this interpreter, with the pretended device where that is asked for."""
    return [sys.executable, *(["-m", "pretended_cuda"] if pretend else []), *arguments]


def tests(out: Path, seconds: float, pretend: bool, variables: dict[str, str]) -> dict[str, Any]:
    """The tests marked `gpu`: numbers of each outcome, and the names of those that failed."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu\n" in path.read_text()]
    options = ["-m", "gpu and not slow", "-p", "no:cacheprovider", "--tb=short"]
    if pretend:
        files, options = [str(ROOT / "tests" / "test_pretended_device.py")], [*options, "-p", "pretended_cuda.plugin", "-p", "no:xdist"]
    elif importlib.util.find_spec("xdist"):
        options += ["-n", "6"]
    status, text = run([sys.executable, "-m", "pytest", *options, *files], out / "tests.log", seconds, variables)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", last_line(text))}
    return {"status": status, **counts, "failures": re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M)}


def last_line(text: str) -> str:
    """The last line that is not blank, or nothing."""
    return text.strip().rpartition("\n")[2]


def bench(out: Path, seconds: float, pretend: bool, variables: dict[str, str]) -> dict[str, Any]:
    """The figures of `device_bench.py`."""
    file = out / "bench.json"
    options = ["--seconds", f"{seconds - 15:.0f}", "--out", str(file), *(["--quick", "--only", "update sac cudagraph"] if pretend else [])]
    status, _ = run(python(pretend, str(ROOT / "scripts" / "device_bench.py"), *options), out / "bench.log", seconds, variables)
    return {"status": status, **(json.loads(file.read_text()) if file.exists() else {"results": {}})}


def mbpo(out: Path, seconds: float, pretend: bool, variables: dict[str, str]) -> dict[str, Any]:
    """MBPO on Hopper until the time is over: steps, evaluations, and medians of what took time."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        options = ["train", "mbpo", *(TINY if pretend else MBPO), f"run_dir={directory}"]
        status, _ = run(python(pretend, "-m", "mbkit", *options), out / "mbpo.log", seconds, variables)
        lines = directory / "metrics.jsonl"
        rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
        for file in (lines, directory / "config.yaml"):
            if file.exists():
                shutil.copy(file, out)
    values = {name: sorted(row[name] for row in rows if row.get(name) is not None) for name in TIMES}
    return {
        "status": status,  # `INTERRUPTED`, as it is meant to be, unless it came to its end
        "steps": rows[-1]["step"] if rows else 0,
        "seconds": rows[-1]["seconds"] if rows else 0.0,
        "evaluations": [[row["step"], row["eval/return"]] for row in rows if "eval/return" in row],
        "medians": {name: column[len(column) // 2] for name, column in values.items() if column},
    }


def machine(variables: dict[str, str], pretend: bool) -> str:
    """Device, torch and Python, in one line."""
    about = "import torch, sys; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '" + NO_DEVICE + "', '| torch',"
    about += " torch.__version__, '| Python', sys.version.split()[0])"
    begin = "from pretended_cuda.switch import start; start(); " if pretend else ""
    return subprocess.run([sys.executable, "-c", begin + about], env=variables, capture_output=True, text=True).stdout.strip()


def markdown(results: dict[str, Any]) -> str:
    """The results for a reader."""
    lines = [f"# Check of a device\n\n{results['machine']}\n"]
    if "tests" in results:
        part = results["tests"]
        lines.append(f"## Tests\n\n{part.get('passed', 0)} passed, {part.get('failed', 0)} failed, {part.get('skipped', 0)} skipped.\n")
        lines += [f"- {name}" for name in part["failures"]]
    if "bench" in results:
        lines.append("## Speed\n\n| side | median | min to max | rounds |\n|---|---|---|---|")
        for name, r in results["bench"]["results"].items():
            if "error" in r:
                lines.append(f"| {name} | {r['error']} | | |")
            else:
                lines.append(f"| {name} | {r['value']:.4g} {r['unit']} | {r['min']:.4g} to {r['max']:.4g} | {r['rounds']} |")
        beside = results["bench"].get("beside mbrl-lib", [])
        lines += ["", *(f"- {v['what']}: {v['times']:.1f} times as fast as mbrl-lib, goal {v['goal']}" for v in beside), ""]
    if "mbpo" in results:
        part = results["mbpo"]
        lines.append(f"## MBPO on Hopper\n\n{part['steps']} steps in {part['seconds']:.0f} s.\n\n| step | return |\n|---|---|")
        lines += [f"| {step} | {value:.1f} |" for step, value in part["evaluations"]]
        lines += ["", *(f"- {name}, median: {value:.4g}" for name, value in part["medians"].items())]
    return "\n".join(lines) + "\n"


def failed(results: dict[str, Any]) -> bool:
    """Whether a part failed: a test, a side of the benchmarks or all of them, or MBPO other than by its interruption."""
    sides = results["bench"]["results"].values() if "bench" in results else []
    return (
        results.get("tests", {}).get("status", 0) != 0
        or any("error" in side for side in sides)
        or ("bench" in results and not sides)
        or results.get("mbpo", {}).get("status", 0) not in (0, INTERRUPTED)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--seconds", type=float, default=460, help="of all parts together; the last one gets what is left")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "device_check")), help="folder of the results")
    parser.add_argument("--pretend", action="store_true", help="tiny sizes on a pretended device, to try this script")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    began, variables = time.monotonic(), environment(args.pretend)
    results: dict[str, Any] = {"machine": machine(variables, args.pretend)}
    print(results["machine"], flush=True)
    if results["machine"].startswith(NO_DEVICE):
        raise SystemExit(f"{NO_DEVICE} here, so that there is nothing to check; --pretend tries this script on a pretended one")
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        left = args.seconds - (time.monotonic() - began)
        if left < 10:
            print(f"{part}: no time is left", flush=True)
            continue
        seconds = min(SHARES[part], left - 5)
        results[part] = {"tests": tests, "bench": bench, "mbpo": mbpo}[part](args.out, seconds, args.pretend, variables)
        (args.out / "device_check.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.out / "device_check.md").write_text(markdown(results))
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    print(markdown(results))
    raise SystemExit(int(failed(results)))


if __name__ == "__main__":
    main()
