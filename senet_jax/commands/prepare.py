"""`senet-jax prepare`."""

import argparse

from senet_jax.command_line.arguments import path

SUMMARY = "Build a data set of TensorFlow Datasets and read every record of it."

EXAMPLES = """examples:
  senet-jax prepare imagenet2012 --manual-dir ~/imagenet --data-dir /data/tfds
  senet-jax prepare cifar10
  senet-jax prepare imagenet_resized/64x64             a config of a set

Any image classification set of TensorFlow Datasets: TFDS downloads and builds it as array_record,
which training reads without TensorFlow. Building needs it: pip install 'senet-jax[prepare]'.
imagenet2012 is built from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of image-net.org
(ILSVRC2012_img_test.tar if it is there) in --manual-dir, which are checked first. A build that is
interrupted leaves nothing that looks like a data set; the same command starts again. A set that is
there is verified."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("name", help="name of the data set, as TFDS writes it")
    parser.add_argument(
        "--data-dir",
        type=path,
        metavar="DIR",
        help="where to; default: TFDS_DATA_DIR, else TFDS's (~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--manual-dir",
        type=path,
        metavar="DIR",
        help="folder of the files that TFDS cannot download; default: downloads/manual in the "
        "data directory",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.data.build.prepare import prepare

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
