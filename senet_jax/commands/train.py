"""`senet-jax train`."""

import textwrap
from typing import TYPE_CHECKING

from senet_jax.command_line.help_pages import Description, Topic, width
from senet_jax.commands.table import SUMMARIES

if TYPE_CHECKING:
    from senet_jax.command_line.invocation import Invocation
    from senet_jax.config import TrainConfig

EXAMPLES = """examples:
  senet-jax train demo                                     handwritten digits, a minute
  senet-jax train cifar10 --model.attention.gate tanh --run-dir runs/tanh      an ablation
  senet-jax train --data.name folder --data.dir DIR --data.image-size 64 --run-dir runs/mine
  senet-jax train imagenet-senet --data.dir DIR --data.batch-size 256
  senet-jax train scenes-segmentation                      digits in a scene, a few minutes
The same command on the same --run-dir resumes. Flags change any field of the preset."""

MORE_EXAMPLES = """examples:
  senet-jax train cifar10 --model.name cifar_seresnet56    the recipe of the ResNet paper
  senet-jax train cifar100 --init-weights cifar10.npz --drop-head --frozen 'stem/*' 'stage2/*' \\
      --body-rate 0.1 --run-dir runs/finetuned             fine-tuning
  senet-jax train ade20k --data.dir ADEChallengeData2016 --init-weights resnest50.pth --drop-head
  senet-jax train --task segmentation --data.name masks --data.dir DIR --data.crop.size 256 \\
      --model.name fcn_resnet18 --run-dir runs/mine        your images and label PNGs
  senet-jax train scenes-detection                         boxes and masks, a few minutes
  senet-jax train coco --data.dir COCO --init-weights resnest50.pth --drop-head
  senet-jax train --task detection --data.name coco_json --data.dir DIR --run-dir runs/cells \\
      --model.name fasterrcnn_resnet18_fpn --data.objects.short 512    your images and boxes

On a GPU or TPU compiled programs are kept in ~/.cache/senet_jax/xla, and the second start is
quicker; --compilation-cache True does so on a CPU, --compilation-cache False nowhere."""

PRESET_LIST = """presets, with their epochs:
  demo                  30  handwritten digits
  cifar10              164  the recipe of ResNet
  cifar100             164  the same
  imagenet-senet       100  the recipe of SENet
  imagenet-resnest     270  the recipe of ResNeSt
  imagenet-short        16  for one GPU
  imagenet-mobile      400  SENet's mobile networks
  places365-senet      100  SE-ResNet-152 on Places365
  scenes-segmentation    3  digits in a scene, the class of each pixel
  camvid                30  CamVid from scratch, a small network
  ade20k               120  DeepLabV3 on ResNeSt-50, the recipe of its authors
  pascal_context        80  the same
  cityscapes           240  the same
  voc2012               50  the same, fine-tuned
  scenes-detection       8  digits in a scene, their boxes and masks
  nuclei                10  nuclei of cells, their boxes and masks, a small network
  bccd                  12  blood cells of three kinds, their boxes, a small network
  coco                  12  Mask R-CNN on ResNeSt-50, the recipe of its authors: AP 42.8, 38.1
  coco-faster           12  Faster R-CNN, the same: AP 42.3
  coco-cascade          12  Cascade R-CNN, the same: AP 45.4
  coco-cascade-mask     12  Cascade Mask R-CNN, the same: AP 46.2, 39.6
  coco-cascade-mask-3x   36  the same on ResNeSt-200, larger images: AP 50.5, 44.2
  coco-senet            24  Faster R-CNN on SE-ResNet-50, SENet with Detectron: AP 40.4
  coco-torchvision      26  Mask R-CNN on ResNet-50, the recipe of torchvision: AP 37.9, 34.6

The figures of those of COCO are AP of boxes, and of masks, as the papers give them, in %; none of
them was trained with this code.
`senet-jax train PRESET --help all` lists the values of a preset. For those of ImageNet and
Places365, `python experiments/imagenet.py --help` lists the errors that the papers report."""

HOSTS = """\
Several hosts train together if each is started with the same command and says which it is
(--hosts.coordinator, --hosts.count, --hosts.index); srun, mpirun and TPU pods say it themselves."""

COMMON = {
    "--run-dir": "folder of all that is written",
    "--epochs": "passes over the training images",
    "--data.name": "data set, as `senet-jax prepare` names it",
    "--data.dir": "its folder",
    "--data.batch-size": "images of a step, over all devices",
    "--model.name": "network of `senet-jax models`",
    "--model.attention.kind": "another attention, or none",
    "--model.attention.gate": "gate of its attention, such as sigmoid or tanh",
    "--optimizer.learning-rate": "peak learning rate",
    "--init-weights": "weights to start from: a file, or hf-hub:owner/repository",
    "--dry-run": "print the memory and time of a step, and stop",
}
"""The flags of the first page of help."""

TOPICS = {
    "examples": Topic("more examples: fine-tuning, segmentation, detection", MORE_EXAMPLES),
    "presets": Topic("the presets, with their epochs", PRESET_LIST),
    "hosts": Topic("several hosts", HOSTS),
}


def run(arguments: list[str]) -> int:
    """Runs the command, whose arguments tyro reads: a flag for every field of the config."""
    from senet_jax.config import TrainConfig
    from senet_jax.training.presets import PRESETS, preset

    named = bool(arguments) and not arguments[0].startswith("-")
    default = preset(arguments.pop(0)) if named else TrainConfig()
    names = textwrap.fill(
        f"presets: {', '.join(PRESETS)}",
        width(),
        subsequent_indent="  ",
        break_on_hyphens=False,
    )
    description = Description(SUMMARIES["train"], f"{EXAMPLES}\n\n{names}", COMMON, TOPICS)
    return run_flags("senet-jax train", "[PRESET]", description, default, arguments)


def run_flags(
    prog: str, positional: str, description: Description, default: "TrainConfig", flags: list[str]
) -> int:
    """Trains with a config of which flags change fields, or does what they ask for instead.

    Args:
        prog: As in ``flags.read_config``.
        positional: Likewise.
        description: Likewise.
        default: The config that the flags change.
        flags: Those of the config's fields, and those of ``Invocation``.

    Returns:
        The exit code.

    Raises:
        UsageError: An unknown flag, or a config that cannot be run.
    """
    from senet_jax.command_line.flags import read_config
    from senet_jax.command_line.invocation import Invocation
    from senet_jax.errors import UsageError

    asked = read_config(prog, positional, description, Invocation(default), flags)
    # These import jax, which --help does without.
    from senet_jax.training.distributed.hosts import distributed_session
    from senet_jax.training.records.run_dir import check_run_dir

    config = asked.config
    if (asked.topology or asked.accelerators) and not asked.dry_run:
        raise UsageError("--topology and --accelerators need --dry-run.")
    if asked.dry_run:
        return _dry_run(config, asked.topology, asked.accelerators)
    config.validate()
    if not asked.show_sharding:
        # Each host says at once what speaks against the folder, before it waits for the others.
        check_run_dir(config)
    with distributed_session(asked.hosts, config.shared_facts(), config.run_dir):
        if asked.show_sharding:
            return _show_sharding(config)
        return _train(asked)


def _train(asked: "Invocation") -> int:
    from senet_jax.studies.run import train_and_report
    from senet_jax.training.records.goodput import process_age_s
    from senet_jax.training.records.profiler import ProfileRequest

    profile = ProfileRequest(asked.profile_steps, asked.profile_start)
    return train_and_report(asked.config, age_s=process_age_s(), profile=profile)


def _show_sharding(config: "TrainConfig") -> int:
    from senet_jax.planning.sharding import draw_sharding
    from senet_jax.training.run import Run

    run = Run(config)
    print(draw_sharding(run.abstract, run.mesh))
    return 0


def _dry_run(config: "TrainConfig", topology: str | None, accelerators: tuple[str, ...]) -> int:
    from senet_jax.planning.dry_run import compile_step, set_up
    from senet_jax.planning.report import format_dry_run
    from senet_jax.training.machine.accelerators import accelerator

    named = {name: accelerator(name) for name in accelerators}
    run = set_up(config, topology)
    print(run.describe(), flush=True)
    print(format_dry_run(compile_step(run), run.mesh, named))
    return 0
