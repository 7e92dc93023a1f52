"""The recipes of the papers for ImageNet and Places365, by name.

    python experiments/imagenet.py senet --model.name legacy_seresnext50_32x4d

trains a network by a recipe. Flags change any field of it, and `--help` after the name lists them;
`--model.name` exchanges the network. The same command on the same `--run-dir` resumes. With another
`--data.batch-size` the learning rate is scaled in proportion. The images come from
`senet-jax prepare imagenet2012` (or `places365_small`).

Recipes, with their epochs, and the errors to expect, top-1/top-5 in %, with their source:

    senet      100  SE-ResNet-50 23.29/6.62 (SENet, arXiv 1709.01507v4, Table 2)
    resnest    270  ResNeSt-50 18.87 top-1 (ResNeSt, arXiv 2004.08955, ablation)
    short       16  none published; FFCV's, which it follows, has 26.2/9.2 for ResNet-50 with
                    BlurPool, evaluated with flips (README of github.com/libffcv/ffcv-imagenet)
    mobile     400  SE-MobileNet 25.3/7.7, SE-ShuffleNet 31.0/11.1 (SENet, Table 3)
    places365  100  SE-ResNet-152 40.37/11.01 (SENet, Table 6), with the 8 million images of
                    Places365-Challenge for the 1.8 million of places365_small

None of them has been run to its end with this code. Cost: an epoch of ImageNet is 1.28
million images of three times the MACs that `senet-jax models` gives, 1.6e16 in all for SE-ResNet-50
at 224 pixels; a run says what time is left.
"""

import dataclasses
import sys
from pathlib import Path

from senet_jax.command_line.interruption import say_interrupted, watch_interrupts
from senet_jax.command_line.output import open_streams, reader_may_leave
from senet_jax.commands import train
from senet_jax.config import ModelConfig, OptimizerConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.errors import ExitCode, UsageError, choose
from senet_jax.terminal import escaped_output
from senet_jax.training.machine.allocator import keep_freed_memory

_IMAGENET = DataConfig(
    name="imagenet2012",
    batch_size=256,
    eval_batch_size=256,
    workers=8,
    augment=AugmentConfig(flip=True),
)

SENET = TrainConfig(
    run_dir=Path("runs/imagenet-senet"),
    epochs=100,
    model=ModelConfig(name="legacy_seresnet50"),
    data=dataclasses.replace(
        _IMAGENET,
        batch_size=1024,
        augment=AugmentConfig(flip=True, rotation=10, pixel_shift=20),
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.6,
        base_batch=1024,
        schedule="step",
        milestones=(30, 60, 90),
        nesterov=False,
    ),
)
"""SENet, section 5.1, with the rotation and the pixel jitter that the README of the released models
names. Neither says the weight decay, for which ResNet's stands. Their batch norms saw the 32 images
of a device: --model.norm-group 32. SENet-154 (appendix) had a rate of 1 for batches of 2048,
--model.dropout 0.2, --label-smoothing 0.1, and for the last few epochs frozen batch norms, which
are not offered here."""

RESNEST = TrainConfig(
    run_dir=Path("runs/imagenet-resnest"),
    epochs=270,
    model=ModelConfig(name="resnest50d", zero_init_last=True, drop_block=0.1),
    data=dataclasses.replace(
        _IMAGENET,
        batch_size=8192,
        augment=AugmentConfig(
            flip=True, policy="autoaugment", color_jitter=0.4, lighting=0.1, mixup=0.2
        ),
    ),
    optimizer=OptimizerConfig(learning_rate=0.1, base_batch=256, warmup_epochs=5),
    label_smoothing=0.1,
)
"""ResNeSt, section 4. Batches of 4096 for ResNeSt-101 and of 2048 for 200 and 269, which also have
--model.dropout 0.2; the crops, of 256, 320 and 416 pixels, come with the name of the network, and
larger ones were evaluated with --data.eval-interpolation bicubic."""

SHORT = TrainConfig(
    run_dir=Path("runs/imagenet-short"),
    epochs=16,
    model=ModelConfig(name="seresnet50", dtype="bfloat16"),
    data=dataclasses.replace(_IMAGENET, batch_size=512, train_sizes=(160, 160, 160, 192)),
    optimizer=OptimizerConfig(
        learning_rate=0.5, base_batch=1024, warmup_epochs=2, nesterov=False, weight_decay=5e-5
    ),
    label_smoothing=0.1,
    ema_decay=0.9995,
)
"""For one GPU, after FFCV's 16 epochs: its rate for one GPU, warm-up, weight decay, label smoothing
and sizes, of which the last is below that of the evaluation, since random crops magnify what they
show (FixRes, arXiv 1906.06423). A cosine for its straight line and the average are ours."""

MOBILE = TrainConfig(
    run_dir=Path("runs/imagenet-mobile"),
    epochs=400,
    model=ModelConfig(name="se_mobilenet_v1"),
    data=dataclasses.replace(_IMAGENET, augment=AugmentConfig(flip=True, crop_area=(0.25, 1.0))),
    optimizer=OptimizerConfig(
        learning_rate=0.1,
        base_batch=256,
        schedule="plateau",
        nesterov=False,
        weight_decay=4e-5,
    ),
)
"""SENet, section 5.1, "Mobile setting". The less aggressive scale augmentation and the weight decay
are ShuffleNet's (arXiv 1707.01083, section 4); it does not say the least area, nor SENet the
patience: 0.25 and 10 epochs are ours."""

PLACES365 = dataclasses.replace(
    SENET,
    run_dir=Path("runs/places365-senet"),
    model=ModelConfig(name="legacy_seresnet152"),
    data=dataclasses.replace(SENET.data, name="places365_small"),
)
"""SENet, section 5.2, which refers for its protocol to others: the recipe of section 5.1."""

RECIPES = {
    "senet": SENET,
    "resnest": RESNEST,
    "short": SHORT,
    "mobile": MOBILE,
    "places365": PLACES365,
}


def main() -> int:
    """Trains by the recipe that the command line names; returns the exit code."""
    name, *flags = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    with escaped_output():
        return _train(name, flags)


def _train(name: str, flags: list[str]) -> int:
    try:
        recipe = RECIPES[choose("recipe", name, RECIPES)]
        prog = f"python experiments/imagenet.py {name}"
        with reader_may_leave():
            return train.run_flags(prog, "", f"Train by the recipe {name!r}.", recipe, flags)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except KeyboardInterrupt:
        return say_interrupted()


if __name__ == "__main__":
    watch_interrupts()
    open_streams()
    keep_freed_memory()
    sys.exit(main())
