import gc
import importlib.metadata
import os
from pathlib import Path

# Set before JAX is first used: eight virtual devices, and the cheapest compilation, because small
# networks take longer to compile than to run. Without the fusion emitters a program compiles in a
# quarter of the time. One piece of code per program: the other core has tests of its own. The
# flags of the environment come last and win.
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_cpu_parallel_codegen_split_count=1"
)
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA ends the process at a flag that it does not know; jaxlib 0.12 has no other emitters.
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"

# Most of the time goes into tracing: it is a tenth shorter without the names of modules and the
# lines of code in each operation.
os.environ.setdefault("FLAX_PROFILE", "0")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# The many runs of the tests compile the same few programs: once is enough. The small ones too:
# there are thousands, of single operations, and to read one takes a third of the time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".pytest_cache/xla").absolute()))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

if os.environ.get("CHECK_ANNOTATIONS"):
    # Types and shapes of arguments and results, at every call: `make test-all`.
    import tests.annotations  # noqa: F401

    install_import_hook(
        ("senet_jax.ops", "senet_jax.attention", "senet_jax.models"), "tests.annotations.check"
    )

pytest_plugins = ["tests.tiny_runs", "tests.median_task"]


@pytest.fixture
def unchecked():
    """Lets wrong types and shapes pass the checks of annotations, to the errors that users get."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def random_variables():
    """Draws the variables of a module, so that no scale is one and no bias or mean is zero."""

    def draw_all(module, *inputs, seed=0):
        rng = np.random.default_rng(seed)

        def draw(path, leaf):
            if path[-1].key in ("var", "scale"):
                return rng.uniform(0.6, 1.4, leaf.shape).astype(np.float32)
            fan_in = max(1, np.prod(leaf.shape[:-1]))
            return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
        return jax.tree_util.tree_map_with_path(draw, shapes)

    return draw_all


HEAVY = {
    "allocator",
    "augment",
    "average_command",
    "batch_norm",
    "benchmarks",
    "blocks",
    "boxes",
    "cascade",
    "cbam",
    "checkpoint",
    "checkpoint_faults",
    "checkpoint_hosts",
    "cifar_networks",
    "cli",
    "compile_cache",
    "contract",
    "conv",
    "conv_lowering",
    "cost_table",
    "datasets",
    "dense_goldens",
    "densenet",
    "detection_task",
    "dilated",
    "dependencies",
    "digit_scenes",
    "detection",
    "detection_goldens",
    "dry_run",
    "ensemble",
    "evaluate",
    "evaluate_command",
    "excitation",
    "excitation_command",
    "export",
    "family_names",
    "finetune",
    "frozen",
    "gate_blocks",
    "gather_excite",
    "goldens",
    "goodput",
    "gpu_set",
    "grad_cam",
    "grouped_on_mesh",
    "help",
    "hosts",
    "inception",
    "inception_weights",
    "interruption",
    "kill_and_resume",
    "loader",
    "loop",
    "masks",
    "matching",
    "nms",
    "per_image",
    "rendezvous",
    "meshes",
    "mix",
    "mixed_step",
    "moments",
    "names_of_others",
    "network_studies",
    "norm",
    "notebooks",
    "optimizer",
    "options",
    "output",
    "package",
    "photographs",
    "plain",
    "pooling",
    "preact_resnet",
    "predict_command",
    "prepare",
    "profiler",
    "pruning",
    "removal",
    "rescaling_in_networks",
    "resize",
    "resnest",
    "resnet",
    "roi_align",
    "roi_align_forms",
    "run_folder",
    "runner",
    "scene_sets",
    "scenes",
    "segmentation",
    "segmentation_task",
    "selective_kernel",
    "shake",
    "shake_shake",
    "show_data",
    "shufflenet",
    "sknet",
    "sliding",
    "slurm",
    "split_attention",
    "squeeze",
    "squeeze_excite",
    "step",
    "studies",
    "study_report",
    "torch",
    "unwritable",
    "vgg",
    "view_batches",
    "weights_in_commands",
    "what_is_refused",
    "worker",
    "zoo",
}
"""Files ``test_*.py`` of more than about two seconds; `make check` leaves them out."""


def pytest_collection_modifyitems(items):
    """Marks the tests of the heavy files, and puts them first, so that both cores end together."""
    tests = Path(__file__).parent
    heavy = {path for path in tests.rglob("test_*.py") if path.stem.removeprefix("test_") in HEAVY}
    assert len(heavy) == len(HEAVY), "a heavy file has another name now"
    for item in items:
        if item.path in heavy:
            item.add_marker("heavy")
    items.sort(key=lambda item: item.path not in heavy)


def pytest_collection_finish():
    """Collects garbage rarely: traces are many small objects, few of them in cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
