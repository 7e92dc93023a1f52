"""The settings of malloc, in processes of their own: they hold until a process ends."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from senet_jax import cli
from senet_jax.training.machine import allocator

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="waits for a system with glibc, whose malloc it sets"
)

PAGES = """
import resource, statistics, sys
from senet_jax.training.machine.allocator import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
import jax, jax.numpy as jnp
images = jnp.ones((64, 128, 128, 16))
kernel = jnp.ones((1, 3, 16, 16))
convolve = jax.jit(lambda x: jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).sum())
faults = []
for call in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    convolve(images).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(statistics.median(faults)))
"""
"""The page faults of the median call. The heap grows in several of the first, in more of them on a
busy machine: where small allocations have split the free block, the next large one does not fit."""


def plain_environment():
    return {
        name: value
        for name, value in os.environ.items()
        if name != "GLIBC_TUNABLES" and not name.startswith("MALLOC_")
    } | {"JAX_PLATFORMS": "cpu"}


@pytest.mark.slow
def test_what_a_program_frees_serves_its_next_call():
    pages = {}
    for how in ("default", "keep"):
        command = [sys.executable, "-c", PAGES, how]
        done = subprocess.run(
            command, env=plain_environment(), capture_output=True, text=True, check=True
        )
        pages[how] = int(done.stdout)
    # The output of the convolution has 64 MB, 16,384 pages, if they are small ones.
    assert pages["default"] > 1000
    assert pages["keep"] < pages["default"] / 10


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_the_choice_of_the_user_stays(monkeypatch, name):
    monkeypatch.setattr(allocator.ctypes, "CDLL", forbidden)
    monkeypatch.setenv(name, "1")
    assert not allocator.keep_freed_memory()


def test_beside_an_accelerator_nothing_is_set(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", forbidden)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    plugin = importlib.metadata.EntryPoint("cuda", "jax_plugins.cuda", "jax_plugins")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints([plugin])
    )
    assert not allocator.keep_freed_memory()


def test_a_command_sets_its_own_process_alone(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: calls.append("set"))
    monkeypatch.setattr(cli, "watch_interrupts", lambda: None)
    assert cli.main(["models", "senet154"]) == 0
    assert not calls
    monkeypatch.setattr(sys, "argv", ["senet-jax", "models", "senet154"])
    assert cli.main() == 0
    assert calls == ["set"]


def forbidden(*args):
    raise AssertionError("malloc was set")
