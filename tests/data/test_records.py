"""Data sets in memory and in folders need no packages for records."""

import subprocess
import sys


def test_the_sources_of_images_import_no_package_for_records():
    code = "import sys, senet_jax.tasks.classification; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"tensorflow_datasets", "array_record", "grain"}.isdisjoint(done.stdout.split())
