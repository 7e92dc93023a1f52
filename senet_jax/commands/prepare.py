"""`senet-jax prepare`."""

import argparse

from senet_jax.command_line.arguments import path

EXAMPLES = """examples:
  senet-jax prepare imagenet2012 --manual-dir ~/imagenet --data-dir /data/tfds
  senet-jax prepare cifar10
  senet-jax prepare imagenet_resized/64x64             a config of a set
  senet-jax prepare camvid --data-dir CamVid           read all labels of a segmentation set
  senet-jax prepare coco_json --data-dir DIR           read the annotations of a detection set

Any image classification set of TensorFlow Datasets: TFDS downloads and builds it as array_record,
which training reads without TensorFlow. Building needs it: pip install -e '.[prepare]'.
imagenet2012 is built from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of image-net.org
(ILSVRC2012_img_test.tar if it is there) in --manual-dir, which are checked first. A build that is
interrupted leaves nothing that looks like a data set; the same command starts again. A set that is
there is verified.

Segmentation sets (ade20k, cityscapes, voc2012, voc2012_aug, pascal_context, camvid, masks) are read
as they were published and need no building: every label is read, faults are named with their file
and value, and the share of each class is printed. Training does the same, and does not read again
what was read and has not changed. Of detection sets (coco, coco_json, voc_xml) the annotations are
read and the objects of each class are counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "name", help="name of the data set, as TFDS writes it, or of a segmentation set"
    )
    parser.add_argument(
        "--data-dir",
        type=path,
        metavar="DIR",
        help="target; default: TFDS_DATA_DIR, else TFDS's (~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--manual-dir",
        type=path,
        metavar="DIR",
        help="folder of the files that TFDS cannot download; default: downloads/manual in the "
        "data directory",
    )
    parser.add_argument(
        "--ignore-label",
        type=int,
        metavar="VALUE",
        help="the value of pixels without a class in the labels of masks; default: 255",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.data.picture_sets import PICTURE_SETS
    from senet_jax.data.scene_sets import SCENE_SETS

    if options.name in SCENE_SETS:
        return _check_scenes(options)
    if options.name in PICTURE_SETS:
        return _check_pictures(options)

    from senet_jax.data.build.prepare import prepare
    from senet_jax.errors import UsageError

    if options.ignore_label is not None:
        raise UsageError(
            f"--ignore-label is for the set masks: {options.name} has no labels of pixels."
        )
    prepared = prepare(options.name, options.data_dir, options.manual_dir)
    print(f"{options.name} {prepared.how}: {prepared.folder}")
    for split in prepared.splits:
        print(f"  {split}")
        if split.unreadable:
            some = ", ".join(map(str, split.unreadable[:5]))
            print(
                f"  {len(split.unreadable):,} of them cannot be read as images (records {some}"
                f"{', ...' if len(split.unreadable) > 5 else ''}); training replaces them by others"
            )
    return 0


def _check_scenes(options: argparse.Namespace) -> int:
    """Reads all labels of a segmentation set and prints its facts."""
    from senet_jax.data.scene_opening import SceneOptions
    from senet_jax.data.scene_sets import open_scenes
    from senet_jax.errors import UsageError
    from senet_jax.text import columns, printable

    if options.manual_dir is not None:
        raise UsageError(f"{options.name} is not built: leave out --manual-dir.")
    # Nothing is trained, so that the size of the crops does not matter.
    asked = SceneOptions(options.data_dir, frame=(1, 1), ignore_label=options.ignore_label)
    dataset = open_scenes(options.name, asked)
    classes = len(dataset.classes)
    rows: list[tuple[str, ...]] = [("class", "training", "validation")]
    shares = []
    for title, scenes in (("training", dataset.train), ("validation", dataset.val)):
        survey = scenes.survey(classes)
        sizes = len({tuple(size) for size in survey.sizes.tolist()})
        least, greatest = survey.sizes.min(0).tolist(), survey.sizes.max(0).tolist()
        pixels = survey.pixels.sum(0)
        labelled = pixels.sum() / survey.sizes.astype(int).prod(1).sum()
        print(
            f"{title}: {len(scenes):,} scenes of {sizes:,} size{'s' * (sizes > 1)}, "
            f"{'x'.join(map(str, least))} to {'x'.join(map(str, greatest))} pixels, "
            f"{labelled:.1%} of them with a class"
        )
        shares.append(pixels / max(1, pixels.sum()))
    for index, name in enumerate(dataset.classes):
        rows.append((printable(name), *(f"{share[index]:.2%}" for share in shares)))
    print("\n".join(columns(rows)))
    return 0


def _check_pictures(options: argparse.Namespace) -> int:
    """Reads the annotations of a detection set and prints its facts."""
    import numpy as np

    from senet_jax.data.picture_sets import PictureOptions, open_pictures
    from senet_jax.errors import UsageError
    from senet_jax.text import columns, printable

    if options.manual_dir is not None or options.ignore_label is not None:
        raise UsageError(
            f"{options.name} is not built and has no labels of pixels: leave out --manual-dir and "
            "--ignore-label."
        )
    dataset = open_pictures(options.name, PictureOptions(options.data_dir))
    rows: list[tuple[str, ...]] = [("class", "training", "validation")]
    counts = []
    for title, pictures in (("training", dataset.train), ("validation", dataset.val)):
        arrays, sizes = pictures.index.arrays, np.unique(pictures.sizes, axis=0)
        least, greatest = sizes.min(0).tolist(), sizes.max(0).tolist()
        crowds = int(np.count_nonzero(arrays.crowd))
        empty = int(np.count_nonzero(pictures.counts == 0))
        print(
            f"{title}: {len(pictures):,} images of {len(sizes):,} size{'s' * (len(sizes) > 1)}, "
            f"{'x'.join(map(str, least))} to {'x'.join(map(str, greatest))} pixels, "
            f"{len(arrays.labels) - crowds:,} objects {'with masks' * dataset.masks}"
            f"{'without masks' * (not dataset.masks)}, at most {pictures.counts.max():,} in an "
            f"image, {empty:,} images without any, {crowds:,} crowds or difficult objects"
        )
        for note in pictures.index.notes:
            print(f"  {printable(note)}")
        learnt = np.asarray(arrays.labels)[~np.asarray(arrays.crowd)]
        counts.append(np.bincount(learnt, minlength=len(dataset.classes)))
    for index, name in enumerate(dataset.classes):
        rows.append((printable(name), *(f"{count[index]:,}" for count in counts)))
    print("\n".join(columns(rows)))
    return 0
