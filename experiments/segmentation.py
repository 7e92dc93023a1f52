"""Does SE help semantic segmentation?

    python -m experiments.segmentation                            # digits in a scene, minutes
    python -m experiments.segmentation --data camvid --data-dir DIR
    python -m experiments.segmentation --data ade20k --data-dir DIR

Two cells, the network of the data set's recipe with SE and without. The second line trains what
experiments/results/camvid_se is of, from scratch. The SENet paper has no segmentation. ResNeSt's
authors compare DeepLabV3 on ResNet-50 and on ResNeSt-50, pretrained on ImageNet: mIoU 42.1 and
45.12 % on ADE20K. Cost: two cells, each as many runs as seeds.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.studies.grid import without_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    if base.task != "segmentation":
        raise UsageError(
            f"this study is of semantic segmentation: choose --data scenes, camvid, ade20k, "
            f"pascal_context, cityscapes or voc2012, not {base.data.name}."
        )
    return {"plain": without_attention(base), "se": base}


if __name__ == "__main__":
    sys.exit(main("segmentation", __doc__, cells, baseline="plain", data="scenes"))
