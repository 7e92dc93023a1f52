"""The settings of glibc's malloc for the memory that XLA allocates on a CPU.

XLA allocates the buffers of a program anew at each call and frees them after it. malloc gives such
large blocks back to the system, which maps and zeroes every page of them again at the next step:
175,000 pages in 8 steps of SE-ResNet-8 on 128 images of CIFAR-10
(``experiments/benchmarks/allocator.py`` has what it costs).
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
"""The parameters of ``mallopt``, from ``malloc.h``."""

_NEVER, _GROWTH = -1, 2**26
"""As threshold: the heap never shrinks; by how many bytes it grows at least."""


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for what it allocates next.

    For a process that computes on a CPU. All its threads share one heap, which does not shrink.
    Must come before jax starts its threads, which choose their heaps once. Nothing is done where
    jax may find an accelerator, where the user has set up malloc by an environment variable, or
    without glibc.

    Returns:
        Whether it was done.
    """
    chosen = "GLIBC_TUNABLES" in os.environ or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    if chosen or platform.libc_ver()[0] != "glibc" or not _only_cpus():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {
        _M_ARENA_MAX: 1,
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: _NEVER,
        _M_TOP_PAD: _GROWTH,
    }
    return all(mallopt(parameter, value) for parameter, value in wanted.items())


def _only_cpus() -> bool:
    """Tells whether jax has no other device to find, without starting it."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return True
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and all(
        importlib.util.find_spec(name) is None for name in ("jax_plugins", "libtpu")
    )
