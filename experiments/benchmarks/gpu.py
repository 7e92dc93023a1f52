"""The set of measurements for one GPU in at most twelve minutes, each part with its own deadline.

    python -m experiments.benchmarks.gpu subset --data-dir DIR --out cifar.npz   # where CIFAR-10 is
    PYTHONPATH=. python -m experiments.benchmarks.gpu run --out DIR --images cifar.npz
    python -m experiments.benchmarks.gpu tables DIR

``subset`` stores 20,000 training and 5,000 test images of CIFAR-10, balanced over the classes and
without loss, in 45 MB. ``run`` runs the parts in the order of their worth: ResNet-50 and
SE-ResNet-50 in training and inference against timm (channels-last, AMP in bfloat16,
``torch.compile``) and plain Flax (``race``); ResNet-56 with and without SE on the subset, seed
after seed (``cifar``); ResNeSt-50 and SE-ResNeXt-101 (``large``); every form of a convolution
(``lowerings``); Mask R-CNN (``detector``); the cost of SE and ECA (``overhead``); batch norm, SE,
max pool and split attention (``norms``). A part is a process of its own, which ends before its
deadline and is killed at it. It writes DIR/PART.json after each measurement; DIR/parts.json says
how each part ended. ``--minutes`` bounds all of them; ``--parts`` chooses some, for a machine that
gives less time to one command. ``tables`` prints the tables, writes them to DIR/README.md and
draws DIR/cifar.png and DIR/bytes.png: the error of each seed, and the seconds of a step against the
bytes that ``gpu_account`` foretold.

``run`` needs jax, flax, optax, jaxtyping and pillow, and torch and timm in --torch-python; it
leaves out what the time does not suffice for. --tiny tries the same on a CPU.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# PyTorch runs beside jax and needs its part of the memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from experiments.benchmarks.harness.gpu_parts import PARTS, TINY, Scale, Setting
from experiments.benchmarks.harness.measure import table
from senet_jax.errors import ExitCode, UsageError
from senet_jax.files import make_folder, write_text

GRACE_S = 5.0
"""Seconds between the time that a part is told and the one at which it is killed."""
LEAST_S = 20.0
"""A part that would have less is not started."""
COLUMNS = ("part", "ended", "seconds")


def run(options: argparse.Namespace) -> int:
    """Runs the parts; returns 0, or 1 if one of them failed."""
    ends = time.monotonic() + 60 * options.minutes
    make_folder(options.out)
    parts: list[dict[str, Any]] = []
    for name in options.parts:
        began = time.monotonic()
        seconds = min(PARTS[name].seconds, ends - began)
        how = _part(name, options, seconds) if seconds >= LEAST_S else "skipped: no time is left"
        parts.append({"part": name, "ended": how, "seconds": time.monotonic() - began})
        write_text(options.out / "parts.json", json.dumps(parts, indent=2) + "\n")
    print(table(parts, COLUMNS))
    return int(any(each["ended"].startswith("failed") for each in parts))


def _part(name: str, options: argparse.Namespace, seconds: float) -> str:
    """Runs a part in a process group of its own, with those that it starts; says how it ended."""
    command = [sys.executable, "-m", "experiments.benchmarks.gpu", "part", name]
    command += ["--seconds", str(seconds - GRACE_S), "--out", str(options.out)]
    command += ["--images", str(options.images)] if options.images else []
    command += ["--torch-python", options.torch_python] if options.torch_python else []
    command += ["--tiny"] if options.tiny else []
    print(f"{name}: {seconds:.0f} s", flush=True)
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "killed at its deadline"
    finally:
        # Also what a part that failed, or was interrupted, has left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "by itself" if code == 0 else f"failed with exit code {code}"


def part(options: argparse.Namespace) -> int:
    """Runs one part in this process."""
    setting = Setting(
        scale=TINY if options.tiny else Scale(),
        torch_python=options.torch_python,
        images=options.images,
        ends=time.monotonic() + options.seconds,
        out=options.out / f"{options.name}.json",
    )
    setting.write()
    PARTS[options.name].measure(setting)
    setting.write()
    return 0


def subset(options: argparse.Namespace) -> int:
    """Stores the subset of CIFAR-10."""
    from experiments.benchmarks.harness.cifar_seeds import CLASSES, Split, balanced, pack
    from senet_jax.data.datasets import open_dataset
    from senet_jax.data.sources import ArraySource

    dataset = open_dataset("cifar10", options.data_dir)
    splits = {}
    for name, source, count in (
        ("train", dataset.train, options.train),
        ("test", dataset.val, options.test),
    ):
        assert isinstance(source, ArraySource)
        splits[name] = balanced(Split(source.images, source.labels), count // CLASSES)
    pack(splits, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


def tables(options: argparse.Namespace) -> int:
    """Prints the tables of a folder, writes them there and draws the figures."""
    from experiments.benchmarks.harness.gpu_report import report

    print(report(options.folder))
    return 0


def main() -> int:
    """Runs the command that the arguments name."""
    there = importlib.util.find_spec("torch") and importlib.util.find_spec("timm")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--out", type=Path, required=True, help="folder of the results")
    both.add_argument("--images", type=Path, help="the file of `subset`; noise if absent")
    both.add_argument(
        "--torch-python",
        default=sys.executable if there else None,
        help="a Python with torch and timm; default: this one, if it has them",
    )
    both.add_argument("--tiny", action="store_true", help="a try on a CPU")
    running = commands.add_parser("run", parents=[both])
    running.add_argument("--minutes", type=float, default=12, help="time for all parts")
    running.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    one = commands.add_parser(
        "part", parents=[both], help="one part in this process; `run` does it"
    )
    one.add_argument("name", choices=list(PARTS))
    one.add_argument("--seconds", type=float, required=True, help="time for this part")
    stored = commands.add_parser("subset")
    stored.add_argument("--data-dir", type=Path, help="the folder of CIFAR-10")
    stored.add_argument("--out", type=Path, required=True)
    stored.add_argument("--train", type=int, default=20_000, help="training images")
    stored.add_argument("--test", type=int, default=5_000, help="test images")
    shown = commands.add_parser("tables")
    shown.add_argument("folder", type=Path)
    for added, function in ((running, run), (one, part), (stored, subset), (shown, tables)):
        added.set_defaults(function=function)
    options = parser.parse_args()
    try:
        code: int = options.function(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    return code


if __name__ == "__main__":
    sys.exit(main())
