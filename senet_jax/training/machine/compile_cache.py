"""Compiled programs kept from one process to the next, so that the second start is a quick one."""

import os
from pathlib import Path

import jax


def use_compile_cache(wanted: bool | None = None) -> Path | None:
    """Lets jax keep what it compiles in a folder of the user, and read it in later processes.

    A folder that is chosen already, by ``JAX_COMPILATION_CACHE_DIR`` or in ``jax.config``, stays.
    Must come before the first compile: jax looks once whether there is a cache. A program is kept
    if it took a second or more (``JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS``).

    Args:
        wanted: Keep programs; None means on accelerators only, because jax 0.10 prints an
            error-level line for every program that a CPU loads.

    Returns:
        The folder, or None where nothing is kept.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen:
        return Path(chosen)
    if wanted is None:
        wanted = jax.default_backend() != "cpu"
    if not wanted:
        return None
    folder = cache_folder()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def cache_folder() -> Path:
    """The user's folder for compiled programs: ``senet_jax/xla`` in ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "senet_jax" / "xla"
