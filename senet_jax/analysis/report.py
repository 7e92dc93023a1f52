"""What a person wants to see at the end of a run."""

from pathlib import Path

from senet_jax.analysis.plots import draw_curves
from senet_jax.training.logging import read_metrics
from senet_jax.training.run_dir import read_config


def report_run(run_dir: Path) -> str:
    """Draws the curves of a finished run and says in a few lines what came out.

    Args:
        run_dir: Folder of a run that has metrics.
    """
    config, lines = read_config(run_dir), read_metrics(run_dir)
    last = lines[-1]
    # A run that resumed just before its end may have no step that was timed.
    timed = [line for line in lines if "time/images_per_s" in line]
    seconds = sum(line["time/steps_s"] for line in timed)
    images = sum(line["time/images_per_s"] * line["time/steps_s"] for line in timed)
    draw_curves(run_dir, f"{config.model.name} on {config.data.name}")
    speed = f"{images / seconds:,.0f} images/s" if timed else "too short to time"
    return (
        f"top-1 {last['val/top1']:.2%} of {last['val/count']:,.0f} held-out images, "
        f"loss {last['val/loss']:.4f}, after {last['step']:,.0f} steps; {speed} in training\n"
        f"{run_dir}/: config.json, dataset.json, metrics.jsonl, curves.png, checkpoints/, "
        "tensorboard/"
    )
