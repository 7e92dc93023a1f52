from pathlib import Path

from experiments.cifar import Study, config
from senet_jax.training.presets import preset


def test_the_study_is_the_recipe_with_a_network_and_a_seed():
    study = Study(out=Path("x"))
    experiment = config(study, "cifar_seresnet56", 2)
    assert sorted(experiment.differences(preset("cifar10"))) == [
        "model.name: cifar_seresnet56, not cifar_seresnet20",
        "seed: 2, not 0",
    ]
    assert experiment.run_dir == Path("x/cifar10/cifar_seresnet56/seed2")


def test_a_shorter_study_keeps_the_shape_of_the_schedule():
    experiment = config(Study(data="cifar100", epochs=16), "cifar_resnet20", 0)
    assert experiment.optimizer.milestones == (8.0, 12.0)
    assert experiment.data.name == "cifar100"
