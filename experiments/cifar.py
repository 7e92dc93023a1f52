"""The CIFAR networks of the papers, plain and with SE, by name.

    python experiments/cifar.py --models cifar_resnet20 cifar_seresnet20 --seeds 3

trains each network with each seed by the recipe of ResNet (arXiv 1512.03385), section 4.2: 164
epochs of SGD with momentum on batches of 128, the rate 0.1 divided by 10 at 82 and 123, padded
random crops and flips. Expected on CIFAR-10, top-1 error: ResNet-20 8.75 % and ResNet-110 6.43 %
(ResNet, Table 6); ResNet-110 6.37 % -> SE-ResNet-110 5.21 % (SENet, Table 4); on CIFAR-100
ResNet-110 26.88 % -> 23.85 % (Table 5).

Every run is a folder of its own under --out; a run that is there already is not run again, one
that was stopped resumes. On 2 CPU cores an epoch of ResNet-20 takes minutes: scale down by
--epochs, whose schedule keeps its shape.
"""

import dataclasses
from pathlib import Path

import tyro

from senet_jax.analysis.report import report_run
from senet_jax.training.config import ModelConfig, TrainConfig
from senet_jax.training.loop import train
from senet_jax.training.presets import preset


@dataclasses.dataclass(frozen=True)
class Study:
    """Train CIFAR networks, each with several seeds."""

    models: tuple[str, ...] = ("cifar_resnet20", "cifar_seresnet20")
    """Names that `senet-jax models 'cifar_*'` lists."""
    data: str = "cifar10"
    """"cifar10" or "cifar100"."""
    seeds: int = 1
    """How many seeds, from 0."""
    epochs: int = 164
    """Passes over the training images."""
    out: Path = Path("runs/cifar")
    """Folder of the runs."""


def config(study: Study, model: str, seed: int) -> TrainConfig:
    """The experiment of one network and one seed."""
    recipe = preset(study.data)
    shrink = study.epochs / recipe.epochs
    milestones = tuple(shrink * epoch for epoch in recipe.optimizer.milestones)
    return dataclasses.replace(
        recipe,
        run_dir=study.out / study.data / model / f"seed{seed}",
        model=ModelConfig(name=model),
        seed=seed,
        epochs=study.epochs,
        optimizer=dataclasses.replace(recipe.optimizer, milestones=milestones),
    )


def main() -> None:
    """Runs the study."""
    study = tyro.cli(Study, description=__doc__)
    for seed in range(study.seeds):
        for model in study.models:
            experiment = config(study, model, seed)
            train(experiment)
            print(report_run(experiment.run_dir), flush=True)


if __name__ == "__main__":
    main()
