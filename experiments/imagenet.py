"""The recipes of the papers for ImageNet and Places365, by name.

    python experiments/imagenet.py senet --model.name legacy_seresnext50_32x4d

trains a network by a recipe. Flags change any field of it; `--help all` after the name lists them;
`--model.name` exchanges the network. The same command on the same `--run-dir` resumes. With another
`--data.batch-size` the learning rate is scaled in proportion. The images come from
`senet-jax prepare imagenet2012` (or `places365_small`). `senet-jax train imagenet-senet` does the
same; places365 is called places365-senet there, and the others have imagenet- before their names.

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

import sys

from senet_jax.command_line.help_pages import Description
from senet_jax.command_line.interruption import say_interrupted, watch_interrupts
from senet_jax.command_line.output import open_streams, reader_may_leave
from senet_jax.commands import train
from senet_jax.errors import ExitCode, UsageError, choose
from senet_jax.terminal import escaped_output
from senet_jax.training.machine.allocator import keep_freed_memory
from senet_jax.training.presets import preset

RECIPES = {
    "senet": "imagenet-senet",
    "resnest": "imagenet-resnest",
    "short": "imagenet-short",
    "mobile": "imagenet-mobile",
    "places365": "places365-senet",
}
"""The presets of the recipes, which `senet-jax train` takes by these longer names."""


def main() -> int:
    """Trains by the recipe that the command line names; returns the exit code."""
    name, *flags = sys.argv[1:] or ["--help"]
    with escaped_output():
        try:
            with reader_may_leave():
                return _train(name, flags)
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return ExitCode.BAD_INPUT
        except KeyboardInterrupt:
            return say_interrupted()


def _train(name: str, flags: list[str]) -> int:
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    recipe = preset(RECIPES[choose("recipe", name, RECIPES)])
    prog = f"python experiments/imagenet.py {name}"
    description = Description(f"Train by the recipe {name!r}.", common=train.COMMON)
    return train.run_flags(prog, "", description, recipe, flags)


if __name__ == "__main__":
    watch_interrupts()
    open_streams()
    keep_freed_memory()
    sys.exit(main())
