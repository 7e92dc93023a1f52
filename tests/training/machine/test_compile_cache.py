import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from senet_jax.training import run as runs
from senet_jax.training.machine.compile_cache import cache_folder, use_compile_cache
from senet_jax.training.run import Run

PROGRAM = """
import json, os, jax
from senet_jax.training.machine.compile_cache import use_compile_cache

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.split("/")[-1]))
folder = use_compile_cache(True)
assert jax.jit(lambda x: x @ x + 1)(jax.numpy.eye(3)).sum() == 12
print(json.dumps({"folder": str(folder), "hits": events.count("cache_hits"),
                  "misses": events.count("cache_misses"), "files": os.path.isdir(folder)}))
"""


def in_another_process(**environment):
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    kept |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    first = in_another_process(XDG_CACHE_HOME=str(tmp_path))
    assert first["folder"] == str(tmp_path / "senet_jax" / "xla")
    assert first["hits"] == 0
    assert first["misses"] > 0
    second = in_another_process(XDG_CACHE_HOME=str(tmp_path))
    assert (second["hits"], second["misses"]) == (first["misses"], 0)


@pytest.fixture
def cache_dir():
    """Sets jax's folder, and puts back what was there."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_of_the_user_stays(cache_dir):
    cache_dir("/chosen")
    assert use_compile_cache(True) == use_compile_cache(False) == Path("/chosen")
    assert jax.config.jax_compilation_cache_dir == "/chosen"


@pytest.mark.parametrize(
    ("backend", "wanted", "on"),
    [("cpu", None, False), ("gpu", None, True), ("tpu", False, False), ("cpu", True, True)],
)
def test_accelerators_keep_programs_and_a_cpu_is_asked(
    cache_dir, monkeypatch, tmp_path, backend, wanted, on
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    cache_dir(None)
    folder = use_compile_cache(wanted)
    assert folder == (tmp_path / "senet_jax" / "xla" if on else None)
    assert jax.config.jax_compilation_cache_dir == (str(folder) if on else None)


def test_the_folder_is_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "senet_jax" / "xla"


@pytest.mark.parametrize("wanted", [None, True, False])
def test_a_run_asks_for_what_its_config_says(tiny, monkeypatch, wanted):
    asked = []
    monkeypatch.setattr(runs, "use_compile_cache", asked.append)
    config = dataclasses.replace(tiny, compilation_cache=wanted)
    Run(config)
    assert asked == [wanted]
    assert config.differences(tiny) == []
