"""`senet-jax excitation`."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_jax.command_line.arguments import Flags, count, number, path, weights
from senet_jax.command_line.help_pages import Topic
from senet_jax.command_line.networks import (
    PIXEL_WEIGHTS,
    add_conversion,
    add_networks,
    add_view,
    check_only,
    classifies_pixels,
    is_weights,
    of_weights,
    open_networks,
    open_segmenter,
    view_fields,
)
from senet_jax.errors import UsageError
from senet_jax.files import check_folder, check_target, make_folder, remove, write_text
from senet_jax.ranges import MOST_STEPS, Range

if TYPE_CHECKING:
    import numpy as np

    from senet_jax.analysis.gates.sites import Block
    from senet_jax.data.datasets import Dataset
    from senet_jax.inference.ensemble import Member

EXAMPLES = """examples:
  senet-jax excitation runs/demo                           the gates by block, class and channel
  senet-jax excitation runs/demo --remove                  which stage can lose its attention
  senet-jax excitation runs/demo --prune                   what channels of low gates are worth
  senet-jax excitation runs/demo --grad-cam 0 5 17 --against runs/plain"""

MORE_EXAMPLES = """examples:
  senet-jax excitation runs/demo/checkpoints/660 --classes 3 8 --blocks stage4/block1
  senet-jax excitation runs/demo --prune 20 40 60 --blocks stage4/block1
  senet-jax excitation runs/imagenet --grad-cam cat.jpg photos/ --limit 5000
  senet-jax excitation --weights seresnet50.safetensors --model seresnet50 \\
      --data imagenet2012 --normalization imagenet --remove

--remove takes out the attention of each stage, of each block of the last stage, and all of it.
--grad-cam draws held-out images, given by number, for their class, and image files for the most
probable class.

Any checkpoint and any attention will do. The table is printed in Markdown: a line for each block
with the mean of its gates, their deviations over channels, images and classes, the share of the
variance that lies between classes, and how many gates are saturated. The folder --out gets it as
report.md; gates.csv by channel, gates.npz by class and channel; gates and depth as PNG and SVG; and
what the options add: removal, pruning and grad_cam. Nothing is trained.

Of a network of semantic segmentation the gates of the backbone are read over the held-out scenes. A
scene counts for each class that it has a pixel of, so that no share of the variance lies between
classes. --remove, --prune and --grad-cam measure classification and are refused."""

SHOWN = 4
"""The number of classes and, besides those of the last stage, of ends of stages that are drawn."""

FIGURES = ("gates", "depth", "removal", "pruning", "grad_cam")

WRITTEN = (
    *("report.md", "gates.csv", "gates.npz", "removal.csv", "pruning.csv"),
    *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")),
)
"""The files of this command."""

MOST_PICTURES = 32
"""The number of images that Grad-CAM draws."""


def add_arguments(parser: Flags) -> None:
    """Declares what the command takes, besides the flags of its topics."""
    parser.add_argument(
        "path",
        nargs="?",
        type=weights,
        help="folder of a run or of a checkpoint, or a file of weights",
    )
    add_networks(parser)
    parser.add_argument(
        "--weights",
        nargs=1,
        type=weights,
        help="instead of a run: a file, or hf-hub:owner/repository",
    )
    parser.add_argument("--data", metavar="NAME", help="data set to look at; a run knows its own")
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--limit",
        type=count(1, MOST_STEPS),
        metavar="N",
        help="look at so many of the held-out images",
    )
    parser.add_argument(
        "--classes",
        action="extend",
        nargs="+",
        metavar="CLASS",
        help="classes to draw; default: four, evenly over all",
    )
    parser.add_argument(
        "--blocks",
        action="extend",
        nargs="+",
        metavar="BLOCK",
        help="blocks to draw and to prune one by one; default: the last of each stage and all of "
        "the last stage",
    )
    parser.add_argument(
        "--remove",
        action="store_true",
        help="measure the error without the attention of stages and blocks",
    )
    parser.add_argument(
        "--prune",
        action="extend",
        nargs="*",
        type=number(Range(0, 100, open_below=True, open_above=True)),
        metavar="PERCENT",
        help="measure the error with the lowest gates shut; default: 10 25 50 75",
    )
    parser.add_argument(
        "--grad-cam",
        action="extend",
        nargs="+",
        metavar="IMAGE",
        help="draw where the network looks: held-out images by number, or files",
    )
    parser.add_argument(
        "--against",
        type=weights,
        metavar="RUN",
        help="another network for --grad-cam, such as one without",
    )
    parser.set_defaults(views="center", sizes=[])
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="folder of what is written; default: excitation/NAME",
    )


TOPICS = {
    "examples": Topic("more examples, and what is written", MORE_EXAMPLES),
    "views": Topic("crops and sizes of the images; batches and devices", declare=add_view),
    "weights": Topic("how files of weights are read", declare=add_conversion),
}


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.analysis.gates import report as report
    from senet_jax.analysis.gates.excitation import read_gates
    from senet_jax.analysis.gates.probe import Probe
    from senet_jax.analysis.gates.pruning import PERCENTS, check_percents, prune, pruning_markdown
    from senet_jax.analysis.gates.removal import removal_markdown, remove_attention
    from senet_jax.data.class_names import find_label, readable
    from senet_jax.data.subset import some
    from senet_jax.text import markdown
    from senet_jax.training.distributed.mesh import make_mesh

    _check(options)
    percents = options.prune or PERCENTS
    check_percents(percents)
    views = view_fields(options)
    source = options.weights[0] if options.path is None else options.path
    out = options.out or default_folder(source)
    check_folder(out)
    for name in WRITTEN if out.is_dir() else ():
        check_target(out / name)
    if _classifies_pixels(source, options):
        return _look_at_scenes(source, out, options)
    networks, dataset = open_networks(
        [source, *([options.against] if options.against else [])], options
    )
    for network in networks:
        if network.card.classes != dataset.classes:
            raise UsageError(
                f"{dataset.name} has other classes than {network.name} was trained on: name the "
                "data set of the network with --data."
            )
    members = [network.member(**views) for network in networks]
    images = some(dataset.val, options.limit or len(dataset.val))
    probe = Probe(
        members[0],
        images,
        make_mesh(options.devices),
        batch_size=options.batch_size,
        workers=options.workers,
    )
    drawn = _drawn(options.blocks, probe.blocks)
    labels = [find_label(name, dataset.classes) for name in options.classes or ()]
    looked_at = _pictures(options, dataset, members) if options.grad_cam else None
    gates = read_gates(probe)
    labels = labels or _spread(gates[0].count)
    step = "" if networks[0].step is None else f" step {networks[0].step}"
    sections = [
        f"# Inside the gates of {markdown(source)}{step}\n\n"
        f"{markdown(networks[0].network)} on {markdown(dataset.name)}",
        f"## Gates\n\n{report.gates_markdown(gates)}",
    ]
    # Each table is printed as soon as it is known: nothing that was computed is lost.
    print("\n\n".join(sections), flush=True)
    removal = remove_attention(probe, gates) if options.remove else None
    if removal is not None:
        sections.append(f"## Without attention\n\n{removal_markdown(removal)}")
        print(f"\n{sections[-1]}", flush=True)
    pruning = None if options.prune is None else prune(probe, gates, drawn, percents)
    if pruning is not None:
        sections.append(f"## Channels shut\n\n{pruning_markdown(pruning)}")
        print(f"\n{sections[-1]}", flush=True)
    draw = None if looked_at is None else looked_at.look(members, readable(dataset.classes))

    make_folder(out)
    write_text(out / "report.md", "\n\n".join(sections) + "\n")
    report.write_gates(gates, dataset.classes, labels, drawn, out)
    if removal is not None:
        report.write_removal(removal, out)
    if pruning is not None:
        report.write_pruning(pruning, out)
    if draw is not None:
        draw(out)
    # Files of an earlier report on other images or blocks are no part of this one.
    without = {"removal": removal, "pruning": pruning, "grad_cam": draw}
    for name in WRITTEN:
        if without.get(name.partition(".")[0], name) is None:
            remove(out / name)
    print(f"\n{out}/: {', '.join(sorted(file.name for file in out.iterdir()))}")
    return 0


def _classifies_pixels(source: str, options: argparse.Namespace) -> bool:
    from senet_jax.inference.trained import run_task
    from senet_jax.tasks.segmentation import Segmentation

    if of_weights(source, options):
        return classifies_pixels(options.model)
    return issubclass(run_task(Path(source)), Segmentation)


def _look_at_scenes(source: str, out: Path, options: argparse.Namespace) -> int:
    """Reads the gates of a network of semantic segmentation."""
    from senet_jax.analysis.gates import report
    from senet_jax.analysis.gates.scenes import (
        read_scene_gates,
        scene_blocks,
        scene_gates_markdown,
    )
    from senet_jax.data.class_names import find_label
    from senet_jax.text import markdown

    check_only(
        options,
        options.parser.parse_args([]),
        (
            *("path", "which", "limit", "classes", "blocks", "out"),
            *PIXEL_WEIGHTS,
        ),
        f"{source} is a network of semantic segmentation, whose gates are read over its scenes.",
    )
    network = open_segmenter([source], options, with_data=True)
    drawn = _drawn(options.blocks, scene_blocks(network))
    classes = network.dataset.classes
    labels = [find_label(name, classes) for name in options.classes or ()]
    gates = read_scene_gates(network, options.limit)
    step = "" if network.step is None else f" step {network.step}"
    text = (
        f"# Inside the gates of {markdown(source)}{step}\n\n"
        f"{markdown(network.run.config.model.name)} on {markdown(network.dataset.name)}\n\n"
        f"## Gates\n\n{scene_gates_markdown(gates)}"
    )
    print(text, flush=True)
    make_folder(out)
    write_text(out / "report.md", f"{text}\n")
    report.write_gates(gates, classes, labels or _spread(gates[0].count), drawn, out)
    for name in WRITTEN:
        if name.partition(".")[0] in ("removal", "pruning", "grad_cam"):
            remove(out / name)
    print(f"\n{out}/: {', '.join(sorted(file.name for file in out.iterdir()))}")
    return 0


def _check(options: argparse.Namespace) -> None:
    if (options.path is None) == (options.weights is None):
        raise UsageError("give either the folder of a run or --weights.")
    if options.against and not options.grad_cam:
        raise UsageError(
            "--against is what --grad-cam compares with: name images with --grad-cam, or leave it "
            "out."
        )


def _drawn(names: list[str] | None, blocks: "Sequence[Block]") -> list[str]:
    """The blocks that are drawn and pruned alone."""
    from senet_jax.analysis.gates.sites import chosen

    if names:
        return [block.name for block in chosen(blocks, names)]
    last = {block.stage: block.name for block in blocks}
    of_last_stage = [block.name for block in blocks if block.stage == blocks[-1].stage]
    ends = {*last.values(), *of_last_stage[-SHOWN:]}
    return [block.name for block in blocks if block.name in ends]


def _spread(count: "np.ndarray") -> list[int]:
    """Some classes that have images, evenly over all."""
    import numpy as np

    there = np.flatnonzero(count)
    places = np.linspace(0, len(there) - 1, min(SHOWN, len(there)))
    return [int(there[place]) for place in places.round().astype(int)]


def default_folder(source: str) -> Path:
    """The default folder of the findings in a run, a checkpoint or weights."""
    path = Path(source).absolute()
    name = path.stem if is_weights(source) else path.name
    if path.parent.name == "checkpoints":
        name = f"{path.parent.parent.name}-{name}"
    return Path("excitation") / name


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """The images that Grad-CAM is asked of."""

    views: "list[np.ndarray]"
    """As each network is shown them, (n, h, w, c)."""
    label: "np.ndarray | None"
    """Their classes; None of files."""
    names: list[str]

    def look(self, members: "Sequence[Member]", classes: list[str]) -> Callable[[Path], list[Path]]:
        """Computes the maps; all networks look for what the first one sees in a file.

        Returns:
            Draws the maps into a folder.
        """
        from senet_jax.analysis.gates.grad_cam import grad_cam
        from senet_jax.analysis.gates.plots import draw_grad_cam

        label, maps = self.label, []
        for member, images in zip(members, self.views, strict=True):
            maps.append(grad_cam(member, images, label))
            label = maps[0].label
        titles = [
            f"{name}: {classes[one]}" for name, one in zip(self.names, maps[0].label, strict=True)
        ]
        names = [member.name for member in members]
        return lambda out: draw_grad_cam(self.views, maps, names, titles, out)


def _pictures(
    options: argparse.Namespace, dataset: "Dataset", members: "Sequence[Member]"
) -> _Pictures:
    """Reads the images of --grad-cam."""
    import numpy as np

    from senet_jax.data.image_files import ImageFiles
    from senet_jax.data.loader import EvalBatches
    from senet_jax.data.views import ViewedExamples, view_name

    source: Any
    numbers = [int(name) for name in options.grad_cam if name.isdecimal()]
    if not numbers:
        source = ImageFiles(options.grad_cam)
    elif len(numbers) < len(options.grad_cam):
        raise UsageError("--grad-cam takes numbers of held-out images or image files, not both.")
    elif max(numbers) >= len(dataset.val):
        raise UsageError(
            f"--grad-cam {max(numbers)} does not exist: {dataset.name} has held-out images 0 to "
            f"{len(dataset.val) - 1}."
        )
    else:
        source = dataset.val.taken(np.array(numbers))
    if len(source) > MOST_PICTURES:
        raise UsageError(f"--grad-cam draws at most {MOST_PICTURES} images, not {len(source)}.")
    views = [member.views[0] for member in members]
    distinct = tuple(dict.fromkeys(views))
    examples = ViewedExamples(source, distinct, dataset.image_shape[2])
    (read,) = EvalBatches(examples, len(source)).read()
    for place, reason in read.errors.items():
        raise UsageError(f"{source.name(place)} cannot be read as an image: {reason}.")
    return _Pictures(
        views=[read.arrays[view_name(distinct.index(view))][:, 0] for view in views],
        label=read.arrays["label"] if numbers else None,
        names=[f"image {number}" for number in numbers]
        or [Path(source.name(place)).name for place in range(len(source))],
    )
