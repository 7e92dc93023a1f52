"""Folders of runs that are written down by hand."""

import dataclasses
import json

from senet_jax.config import AttentionOverrides, ModelConfig, TrainConfig

SE = ModelConfig(name="cifar_seresnet8")
TANH = dataclasses.replace(SE, attention=AttentionOverrides(gate="tanh"))
PLAIN = ModelConfig(name="cifar_resnet8")
CARD = {
    "name": "cifar10",
    "classes": [f"c{index}" for index in range(10)],
    "image_shape": [32, 32, 3],
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "train": 50000,
    "val": 10000,
    "photographs": False,
}


def write_run(folder, model=SE, seed=0, top1=0.8, epochs=2, ended=True, **fields):
    config = TrainConfig(run_dir=folder, model=model, seed=seed, epochs=epochs, **fields)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "dataset.json").write_text(json.dumps({**CARD, "name": config.data.name}))
    lines = [
        {
            "step": 390 * epoch,
            "epoch": epoch,
            "train/top1": top1 - 0.1 / epoch,
            "val/top1": top1 if epoch == epochs else top1 - 0.2,
            "val/loss": 1.0,
            "val/count": 10,
            "time/images_per_s": 100.0 * epoch,
            "time/steps_s": 1.0,
        }
        for epoch in range(1, epochs + ended)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
