"""Does SE help detection?

    python -m experiments.detection                               # digits in a scene, minutes
    python -m experiments.detection --data nuclei --data-dir DIR
    python -m experiments.detection --data bccd --data-dir DIR
    python -m experiments.detection --data coco-senet --data-dir DIR

Two cells, the network of the data set's recipe with SE and without: Mask R-CNN on digits and on
nuclei, Faster R-CNN on blood cells and on COCO. SENet, Table 7, has the last: Faster R-CNN on
ResNet-50 pretrained on ImageNet, AP 38.0 % without SE and 40.4 % with it. DIR of nuclei is in
COCO's format, that of blood cells in PASCAL VOC's. Cost: two cells, each as many runs as seeds.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.studies.grid import without_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    if base.task != "detection":
        raise UsageError(
            "this study is of detection: choose --data scenes-detection, nuclei, bccd or "
            f"coco-senet, not {base.data.name}."
        )
    return {"plain": without_attention(base), "se": base}


if __name__ == "__main__":
    sys.exit(main("detection", __doc__, cells, baseline="plain", data="scenes-detection"))
