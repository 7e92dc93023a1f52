"""Runnable studies, recipes and benchmarks."""

import sys

from senet_jax.command_line.interruption import watch_interrupts

# Python calls a program so while it looks for the module that `python -m` names.
if sys.argv[0] == "-m":
    # Before the imports of the program, which take seconds. It may wait for its runs to be saved.
    watch_interrupts(ends_within_s=None)
