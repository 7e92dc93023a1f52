"""`senet-jax evaluate`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_jax.command_line.arguments import Flags, count, path, weights
from senet_jax.command_line.help_pages import Topic
from senet_jax.command_line.networks import (
    PIXEL_WEIGHTS,
    SLIDING,
    add_conversion,
    add_networks,
    add_sliding,
    add_views,
    check_no_detector,
    check_no_sliding,
    check_only,
    classifies_pixels,
    of_weights,
    open_networks,
    open_segmenter,
    shows_pixels,
    sliding_of,
    view_fields,
)
from senet_jax.errors import UsageError
from senet_jax.ranges import MOST_STEPS
from senet_jax.text import printable

if TYPE_CHECKING:
    import numpy as np

    from senet_jax.data.datasets import Dataset
    from senet_jax.inference.ensemble import Ensemble
    from senet_jax.inference.tally import Tally
    from senet_jax.inference.trained import Trained
    from senet_jax.tasks.base import Task

EXAMPLES = """examples:
  senet-jax evaluate runs/demo                        the newest checkpoint of a run
  senet-jax evaluate runs/demo/checkpoints/660        this very checkpoint
  senet-jax evaluate runs/a runs/b                    an ensemble: the average of the softmaxes
  senet-jax evaluate runs/a --views ten-crop          corners, centre and their mirror images
  senet-jax evaluate --weights resnet20.npz --model cifar_resnet20 --data cifar10 \\
      --normalization imagenet                        weights in PyTorch's names"""

MORE_EXAMPLES = """examples:
  senet-jax evaluate runs/demo --which best --json    the checkpoint of the best validation
  senet-jax evaluate runs/a --sizes 224 256 288       several scales
  senet-jax evaluate runs/a --per-class classes.csv   accuracy by class, and what is confused
  senet-jax evaluate runs/coco --results found.json   COCO's twelve numbers, AP by class
  senet-jax evaluate runs/coco --bn-batches 200       with the statistics of 200 batches
  senet-jax evaluate runs/a --labels real.json        other labels: ImageNet-ReaL's, or one's own
  senet-jax evaluate runs/ade20k --scales 0.5 0.75 1 1.25 1.5 1.75 --flip
  senet-jax evaluate --weights deeplabv3.pth --model deeplabv3_resnet50 --data voc2012 \\
      --data-dir VOCdevkit                            the class of each pixel

A label file is JSON: a list by position (of ImageNet's validation images by their number), or an
object by the names of the images; each item is a label, the name of a class, or a list of them,
each of which is right, and images with an empty list are not counted."""

ENSEMBLES = """\
Several networks, sizes or views are averaged as probabilities, in float64, each with the same
weight."""

SCENES = """\
A network of semantic segmentation is shown each image as it is. Images of several sizes are padded
to few shapes (--data.eval-shapes of the run), which networks see that average over the image, as SE
and DeepLabV3 do: --own-sizes pads nothing, and compiles the network for each size. With --scales,
--flip, --crop-size or --base-size it is measured as ResNeSt's authors report it (PyTorch-Encoding):
each scaled image in crops of --crop-size, two thirds of their side apart, black where the image
ends; the exponentials of the logits, to which those of the mirrored crop are added, are averaged
over the crops, resized to the image and added over the scales."""

SHOWN = 5
"""The number of the worst and best classes and of the confusions that are printed."""


def add_arguments(parser: Flags) -> None:
    """Declares what the command takes, besides the flags of its topics."""
    parser.add_argument(
        "path",
        nargs="*",
        type=weights,
        help="folders of runs or of checkpoints, and files of weights",
    )
    add_networks(parser)
    parser.add_argument(
        "--weights",
        action="extend",
        nargs="+",
        type=weights,
        help="instead of a run: files, or hf-hub:owner/repository",
    )
    parser.add_argument(
        "--data", metavar="NAME", help="data set to evaluate on; a run knows its own"
    )
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--labels", type=path, metavar="JSON", help="other labels for the images")
    parser.add_argument(
        "--per-class", type=path, metavar="CSV", help="write what is right by class"
    )
    parser.add_argument(
        "--results",
        type=path,
        metavar="JSON",
        help="write the detections in COCO's results format (runs of detection)",
    )
    parser.add_argument(
        "--bn-batches",
        type=count(1, MOST_STEPS),
        metavar="N",
        help="take the statistics of batch norm anew over N training batches (runs of detection)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_scenes(parser: Flags) -> None:
    add_sliding(parser)
    parser.add_argument(
        "--own-sizes", action="store_true", help="pad no image; each size is a compiled program"
    )


TOPICS = {
    "examples": Topic("more examples, and the file of --labels", MORE_EXAMPLES),
    "views": Topic("crops and sizes of the images; batches and devices", ENSEMBLES, add_views),
    "weights": Topic("how files of weights are read", declare=add_conversion),
    "segmentation": Topic("scales and sliding crops", SCENES, _add_scenes),
}


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.data.class_names import readable
    from senet_jax.files import check_target, is_folder, write_text
    from senet_jax.inference.ensemble import Ensemble
    from senet_jax.inference.trained import run_task
    from senet_jax.tasks.classification import Classification
    from senet_jax.tasks.segmentation import Segmentation
    from senet_jax.training.distributed.mesh import make_mesh

    if bool(options.path) == bool(options.weights):
        raise UsageError("give either the folder of a run or --weights.")
    views = view_fields(options)
    if options.per_class is not None:
        check_target(options.per_class)
    sources = options.path or options.weights
    check_no_detector(options.model)
    if classifies_pixels(options.model):
        return _evaluate_pixels(options, sources)
    if len(options.path) == 1 and is_folder(options.path[0]):
        task = run_task(Path(options.path[0]))
        if issubclass(task, Segmentation):
            return _evaluate_pixels(options, sources)
        if task is not Classification:
            return _evaluate_task(options, task)
    check_no_sliding(options, (*SLIDING, "own_sizes"))
    if options.results is not None:
        raise UsageError("--results is for a run of detection.")
    if options.bn_batches is not None:
        raise UsageError(
            "--bn-batches is for a run of detection: `senet-jax average RUN --bn-batches N` writes "
            "the weights of other runs with such statistics."
        )
    networks, dataset = open_networks(sources, options)
    for network in networks:
        if options.labels is None and network.card.classes != dataset.classes:
            raise UsageError(
                f"{dataset.name} has other classes than {network.name} was trained on: give "
                "--labels for its images."
            )
    classes = networks[0].card.classes
    valid = _relabelled(options, dataset, classes)
    ensemble = Ensemble(
        [network.member(**views) for network in networks], make_mesh(options.devices)
    )
    tally, unreadable = _count(ensemble, dataset, valid, options)
    result: dict[str, Any] = {**_what(networks), **tally.metrics()}
    if options.labels is not None:
        result |= {"labels": str(options.labels), "unlabelled": tally.unlabelled}
    if unreadable:
        result["unreadable"] = unreadable
    # Printed first: if the file cannot be written, what was computed is not lost.
    print(json.dumps(result) if options.json else "\n".join(_lines(result, tally)), flush=True)
    if options.per_class is not None:
        if not options.json:
            print("\n".join(_by_class(tally, readable(classes))), flush=True)
        write_text(options.per_class, tally.by_class().to_csv(classes))
        if not options.json:
            print(f"{options.per_class}: all classes")
    return 0


def _evaluate_task(options: argparse.Namespace, task: "type[Task]") -> int:
    """Evaluates a run of any task as the run itself did, by the metrics of the task."""
    from senet_jax.files import check_target, write_text
    from senet_jax.inference.average import batch_norm_statistics
    from senet_jax.inference.trained import restore_run
    from senet_jax.tasks.detections import Detections

    path = options.path[0]
    check_only(
        options,
        options.parser.parse_args([path]),
        ("path", "which", "json", "results", "bn_batches"),
        f"{path} is a run of the task {task.name}, which is evaluated as the run itself was.",
    )
    if options.results is not None:
        if task.name != "detection":
            raise UsageError("--results is for a run of detection.")
        check_target(options.results)
    run, step, variables = restore_run(Path(path), options.which, with_data=True)
    if options.bn_batches is not None:
        stats = batch_norm_statistics(run, variables, options.bn_batches)
        variables = {**variables, "batch_stats": stats}
    accumulator = run.task.accumulator()
    metrics = run.evaluate(variables, accumulator)
    _print_metrics(options, {"step": step}, task, metrics)
    if options.results is not None:
        assert isinstance(accumulator, Detections)
        found = accumulator.named_results([accumulator.part()], run.dataset.classes)
        write_text(options.results, json.dumps(found) + "\n")
        if not options.json:
            print(f"{options.results}: {len(found):,} detections in COCO's results format")
    return 0


OF_PIXELS = ("path", "which", "json", "own_sizes", *SLIDING)
"""The flags for a run of semantic segmentation."""


def _evaluate_pixels(options: argparse.Namespace, sources: list[str]) -> int:
    """Evaluates a network of semantic segmentation."""
    check_only(
        options,
        options.parser.parse_args([]),
        (*OF_PIXELS, *(PIXEL_WEIGHTS if of_weights(sources[0], options) else ())),
        shows_pixels(sources[0]),
    )
    network = open_segmenter(sources, options, with_data=True)
    sliding = sliding_of(options, network)
    if sliding is not None and options.own_sizes:
        raise UsageError("leave out --own-sizes: crops that slide have a size of their own.")
    metrics = network.evaluate(sliding, own_sizes=options.own_sizes)
    what = {"weights": network.name} if network.step is None else {"step": network.step}
    _print_metrics(options, what, type(network.task), metrics)
    return 0


def _print_metrics(
    options: argparse.Namespace,
    what: dict[str, Any],
    task: "type[Task]",
    metrics: dict[str, float],
) -> None:
    if options.json:
        print(json.dumps({**what, **metrics}))
        return
    results = [
        f"{metric.title} {metric.text(metrics[metric.validation])}"
        for metric in task.metrics
        if metric.validation in metrics
    ]
    ((key, value),) = what.items()
    count = metrics["val/count"]
    print(printable(f"{key} {value}: {', '.join(results)} ({count:,} held-out images)"))
    for line in task.details(metrics):
        print(printable(line))


def _relabelled(
    options: argparse.Namespace, dataset: "Dataset", classes: list[str]
) -> "np.ndarray | None":
    """The valid labels of each image by ``--labels``."""
    from senet_jax.data.relabel import read_labels

    if options.labels is None:
        return None
    names = [dataset.val.name(index) for index in range(len(dataset.val))]
    valid = read_labels(options.labels, names, classes)
    if options.per_class is not None and valid.shape[1] > 1:
        raise UsageError(f"{options.labels} has images of several labels, so of no one class.")
    return valid


def _count(
    ensemble: "Ensemble",
    dataset: "Dataset",
    relabelled: "np.ndarray | None",
    options: argparse.Namespace,
) -> "tuple[Tally, list[str]]":
    """Evaluates; the second of what is returned names the images that could not be read."""
    from senet_jax.inference.tally import Tally
    from senet_jax.training.evaluate import check_count

    source = dataset.val
    tally = Tally(ensemble.classes)
    unreadable: list[str] = []
    for answers in ensemble.predict(
        source, options.batch_size, channels=dataset.image_shape[2], workers=options.workers
    ):
        valid = answers.label[:, None] if relabelled is None else relabelled[answers.index]
        tally.add(answers.log_p, valid)
        unreadable += [source.name(index) for index in answers.unreadable]
        for index, reason in answers.errors.items():
            sentence = f"senet-jax: {source.name(index)} is left out: {reason}"
            print(printable(sentence), file=sys.stderr)
    check_count(tally.count + tally.unlabelled + len(unreadable), len(source))
    if not tally.count:
        raise UsageError("not one image could be read and has a label: there is nothing to count.")
    return tally, unreadable


def _what(networks: "list[Trained]") -> dict[str, Any]:
    """The network in words: a step of a run, a file of weights, or the members of an ensemble."""
    names = [
        network.name if network.step is None else f"{network.name} step {network.step}"
        for network in networks
    ]
    if len(names) > 1:
        return {"ensemble": names}
    network = networks[0]
    return {"weights": network.name} if network.step is None else {"step": network.step}


def _lines(result: dict[str, Any], tally: "Tally") -> list[str]:
    count = tally.count
    key, value = next(iter(result.items()))
    what = f"ensemble of {', '.join(value)}" if key == "ensemble" else f"{key} {value}"
    loss = f", loss {result['val/loss']:.5f}" if "val/loss" in result else ""
    lines = [
        f"{what}: top-1 {tally.right / count:.2%} ({tally.right:,} of {count:,} held-out images)"
        f"{loss}",
        f"top-1 error {_error(count - tally.right, count)}",
    ]
    if "val/top5" in result:
        lines[-1] += f", top-5 error {_error(count - tally.right5, count)}"
    if tally.unlabelled:
        lines.append(f"{tally.unlabelled:,} images without a valid label are left out")
    if "unreadable" in result:
        lines.append(f"left out, because they cannot be read: {', '.join(result['unreadable'])}")
    return list(map(printable, lines))


def _error(wrong: int, count: int) -> str:
    return f"{100 * wrong / count:.2f} % ({wrong:,} of {count:,} images)"


def _by_class(tally: "Tally", names: list[str]) -> list[str]:
    by_class = tally.by_class()
    ordered = by_class.ordered()
    lines = []
    for title, labels in (("worst", ordered[:SHOWN]), ("best", ordered[::-1][:SHOWN])):
        lines.append(f"{title} classes:")
        lines += [
            f"  {by_class.right[label] / by_class.images[label]:7.2%} of "
            f"{by_class.images[label]:,}  {names[label]}"
            for label in labels
        ]
    lines.append("most frequent confusions:")
    lines += [
        f"  {times:,} times {names[label]} taken for {names[taken]}"
        for label, taken, times in by_class.confusions(SHOWN)
    ]
    return list(map(printable, lines))
