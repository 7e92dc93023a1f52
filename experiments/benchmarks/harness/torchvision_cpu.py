"""Loads torchvision's compiled operators with a build of PyTorch for CPUs.

The wheels of torchvision are compiled against PyTorch for GPUs. Their library has the operators of
CPUs too, but it asks for libraries of CUDA, which PyTorch for CPUs lacks, and does not load.
``stand_in`` compiles libraries with the functions of CUDA that it asks for, each of which ends the
process. No operator of a CPU calls one, so that torchvision's own machine code is measured. It
needs ``nm`` and a C compiler.
"""

import os
import re
import subprocess
from pathlib import Path

_FIND = """
import importlib.util
print(importlib.util.find_spec("torchvision").submodule_search_locations[0])
"""
_LOADS = "from torchvision.extension import _has_ops; print(_has_ops())"
_OF_CUDA = re.compile(r"_ZN?K?(2at|3c10)4cuda")
_RUNTIME = "libcudart"


def library_path(python: str, folder: Path) -> str:
    """The value of LD_LIBRARY_PATH with which torchvision's operators load.

    Args:
        python: A Python that has torch and torchvision.
        folder: An empty folder for the libraries that stand in for those of CUDA.

    Raises:
        RuntimeError: There is no torchvision, or they do not load with these either.
    """
    given = os.environ.get("LD_LIBRARY_PATH", "")
    if _ask(python, _LOADS, given).stdout == "True\n":
        return given
    package = _ask(python, _FIND, given).stdout.strip()
    if not package:
        raise RuntimeError(f"{python} has no torchvision.")
    stand_in(Path(package), folder)
    path = os.pathsep.join(filter(None, [str(folder), given]))
    answer = _ask(python, _LOADS, path)
    if answer.stdout != "True\n":
        raise RuntimeError(
            f"the compiled operators of torchvision of {python} do not load:\n{answer.stderr}"
        )
    return path


def stand_in(package: Path, folder: Path) -> None:
    """Compiles the libraries of CUDA that torchvision's asks for.

    Args:
        package: The folder of torchvision.
        folder: The folder of the libraries.
    """
    command = ["nm", "-D", "--undefined-only", str(package / "_C.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {line.split()[-1].partition("@")[0] for line in done.stdout.splitlines()}
    lines = []
    for name in sorted(filter(_OF_CUDA.match, names)):
        # A variable is a word of lower case that ends its name; it is never read.
        variable = name.endswith("9allocatorE")
        lines.append(
            f"void *{name}[64];" if variable else f"void {name}(void) {{ __builtin_trap(); }}"
        )
    for library, text in (("c10_cuda", "\n".join(lines)), ("torch_cuda", "int empty;")):
        source = folder / f"{library}.c"
        source.write_text(f"{text}\n")
        target = str(folder / f"lib{library}.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", target, str(source)], check=True)
    for runtime in package.with_name("torchvision.libs").glob(f"{_RUNTIME}.*"):
        # torchvision brings the run-time library of CUDA under a name of its own.
        (folder / f"{_RUNTIME}.so.{runtime.name.rpartition('.so.')[2]}").symlink_to(runtime)


def _ask(python: str, code: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": path},
    )
