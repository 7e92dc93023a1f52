import numpy as np

from experiments.benchmarks.scene_input import Benchmark, measure, whole_scaled
from senet_jax.data.scene_transforms import scaled_part
from senet_jax.data.scenes import Scene


def test_both_ways_give_the_same_part_but_for_rounding():
    rng = np.random.default_rng(0)
    scene = Scene(
        rng.integers(0, 256, (40, 50, 3), np.uint8), rng.integers(0, 9, (40, 50), np.uint8)
    )
    ours, theirs = (way(scene, (60, 75), (7, 9), (30, 40)) for way in (scaled_part, whole_scaled))
    assert np.array_equal(ours.label, theirs.label)
    assert np.abs(ours.image.astype(int) - theirs.image).max() <= 2


def test_a_small_benchmark_measures_pairs():
    times = measure(Benchmark(height=64, width=80, images=2, pairs=2))
    assert times.shape == (2, 2)
    assert (times > 0).all()
