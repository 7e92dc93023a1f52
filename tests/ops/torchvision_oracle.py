"""torchvision's operations in a process of its own, with arrays in and out.

torchvision need not fit the build of PyTorch: where its C++ operations do not load, those that
it has in Python alone are compared. The environment variable TORCHVISION_PYTHON names a Python
that has both packages; without it, the Python of the tests may have them.
"""

import importlib.util
import os
import pickle
import subprocess
import sys

import pytest

PYTHON = os.environ.get("TORCHVISION_PYTHON", sys.executable)

needs_torchvision = pytest.mark.skipif(
    "TORCHVISION_PYTHON" not in os.environ and importlib.util.find_spec("torchvision") is None,
    reason="needs torchvision in the tests' Python, or TORCHVISION_PYTHON",
)

PROLOGUE = """
import os, pickle, sys
os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    try:
        library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    except RuntimeError:
        pass
import torchvision
def tensors(tree):
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(tensors, tree))
    return torch.from_numpy(tree.copy()) if hasattr(tree, "dtype") else tree
def arrays(tree):
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(arrays, tree))
    return tree.detach().numpy() if isinstance(tree, torch.Tensor) else tree
def answer(function):
    arguments = tensors(pickle.load(sys.stdin.buffer))
    sys.stdout.buffer.write(pickle.dumps(arrays(function(*arguments))))
"""


def torchvision(program, *arguments):
    """The result of ``function`` of a program, which may use ``torch`` and ``torchvision``.

    Args:
        program: Text that defines ``function`` of tensors.
        *arguments: NumPy arrays, numbers, or lists of them.
    """
    code = f"{PROLOGUE}\n{program}\nanswer(function)\n"
    done = subprocess.run(
        [PYTHON, "-c", code], input=pickle.dumps(arguments), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)
