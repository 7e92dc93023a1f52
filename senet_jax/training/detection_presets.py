"""The presets of detection: small ones that train in minutes, and the recipes of the papers.

Those of COCO were never trained here: their figures are the papers'. The backbones of all of them
started from weights of ImageNet, of which stem and stage 2 stayed as they were: ``--init-weights
FILE --drop-head --model.frozen-stages 2``. AP of masks stands behind that of boxes.
"""

import dataclasses
from pathlib import Path
from typing import Any

from senet_jax.config import ModelConfig, OptimizerConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig, ObjectsConfig

DETECTRON2: dict[str, Any] = {
    "anchor_style": "detectron2",
    "post_nms_train": 1000,
    "rpn_normalizer": "fixed",
    "box_beta": 0.0,
    "box_outputs": "foreground",
    "background": "last",
    "roi_aligned": True,
    "roi_samples": 0,
    "level_style": "detectron2",
    "head_init": "detectron2",
}
"""The fields of a Faster R-CNN in which detectron2 differs from torchvision."""

DETECTRON2_MASKS: dict[str, Any] = {"mask_targets": "binary", "mask_paste": "detectron2"}
"""Those of a mask head."""

DETECTRON2_CASCADE: dict[str, Any] = {"box_outputs": "agnostic", "post_nms_train": 2000}
"""Those of a cascade that are other than those of a Faster R-CNN."""

SCENES_DETECTION = TrainConfig(
    run_dir=Path("runs/scenes-detection"),
    task="detection",
    epochs=8,
    model=ModelConfig(
        name="maskrcnn_seresnet18_fpn",
        blocks=(1, 1, 1, 1),
        widths=(48, 96, 96, 96),
        stem_width=32,
        pyramid_width=48,
        # Two for each level; digits are 8 to 30 pixels wide, and higher than wide.
        anchor_sizes=(16, 24, 24, 32, 32, 48, 48, 64, 64, 96),
        anchor_ratios=(1.0, 2.0),
        pre_nms_train=100,
        pre_nms_test=100,
        post_nms_train=64,
        post_nms_test=64,
        rpn_samples=64,
        box_width=128,
        box_samples=24,
        box_positive=0.5,
        roi_samples=1,
        detections=12,
        mask_convs=2,
        mask_width=32,
        mask_bins=7,
    ),
    data=DataConfig(
        name="scenes",
        batch_size=16,
        eval_batch_size=64,
        objects=ObjectsConfig(most=8, mask_side=40),
    ),
    optimizer=OptimizerConfig(
        name="adamw", learning_rate=0.002, warmup_epochs=0.5, weight_decay=1e-2
    ),
    eval_every_epochs=4,
)
"""Digits in a scene with a small Mask R-CNN: nothing to download. Few proposals and coarse masks,
because digits have 8x8 pixels before they are enlarged."""

_SMALL: dict[str, Any] = {
    "blocks": (1, 1, 1, 1),
    "widths": (32, 64, 96, 96),
    "stem_width": 32,
    "pyramid_width": 48,
    "pre_nms_train": 300,
    "pre_nms_test": 300,
    "post_nms_train": 200,
    "post_nms_test": 200,
    "box_width": 128,
    "box_positive": 0.5,
    "roi_samples": 1,
}
_FROM_SCRATCH = OptimizerConfig(
    name="adamw", learning_rate=0.002, warmup_epochs=0.5, weight_decay=1e-2
)

NUCLEI = TrainConfig(
    run_dir=Path("runs/nuclei"),
    task="detection",
    epochs=10,
    model=ModelConfig(
        name="maskrcnn_seresnet18_fpn",
        # Two for each level; half of the nuclei are 10 to 18 pixels wide, and few more than 30.
        anchor_sizes=(8, 12, 16, 24, 32, 48, 48, 64, 64, 96),
        anchor_ratios=(0.6, 1.0, 1.6),
        box_samples=96,
        mask_convs=2,
        mask_width=32,
        mask_bins=7,
        **_SMALL,
    ),
    data=DataConfig(
        name="coco_json",
        batch_size=4,
        eval_batch_size=8,
        objects=ObjectsConfig(most=101, mask_side=28),
        augment=AugmentConfig(flip=True),
    ),
    optimizer=_FROM_SCRATCH,
    eval_every_epochs=5,
)
"""Nuclei of cells under a microscope with a small Mask R-CNN, from scratch: the images of 256x256
pixels of the Data Science Bowl of 2018, in COCO's format."""

BCCD = TrainConfig(
    run_dir=Path("runs/bccd"),
    task="detection",
    epochs=12,
    model=ModelConfig(
        name="fasterrcnn_seresnet18_fpn",
        # At a smaller side of 240, platelets are 20 pixels wide, red cells 50 and white ones 95.
        anchor_sizes=(16, 24, 32, 48, 64, 80, 96, 128, 128, 160),
        anchor_ratios=(1.0,),
        box_samples=64,
        **_SMALL,
    ),
    data=DataConfig(
        name="voc_xml",
        val_split="test",
        batch_size=4,
        eval_batch_size=8,
        objects=ObjectsConfig(short=(240,), most=40),
        augment=AugmentConfig(flip=True),
    ),
    optimizer=_FROM_SCRATCH,
    eval_every_epochs=6,
)
"""Blood cells of three kinds with a small Faster R-CNN, from scratch: BCCD, in PASCAL VOC's format,
at half of its size."""

_COCO = TrainConfig(
    run_dir=Path("runs/coco"),
    task="detection",
    epochs=12,
    data=DataConfig(
        name="coco",
        batch_size=16,
        eval_batch_size=16,
        eval_shapes=4,
        workers=8,
        normalization="imagenet",
        objects=ObjectsConfig(short=(640, 800), long=1333),
        augment=AugmentConfig(flip=True),
    ),
    optimizer=OptimizerConfig(
        learning_rate=0.02,
        base_batch=16,
        schedule="step",
        milestones=(8, 11),
        warmup_epochs=0.14,
        nesterov=False,
    ),
)
"""90,000 steps of 16 images (1x), which is 12 epochs; a warm-up of 1,000 steps."""


def _resnest(name: str, head: str, **fields: Any) -> TrainConfig:
    """A detector on ResNeSt-50 as the network's authors train it.

    Args:
        name: Name of the preset.
        head: As in the name of a detector.
        **fields: Fields of the network that differ.
    """
    model = {
        **DETECTRON2,
        "pyramid_norm": True,
        "box_convs": 4,
        "box_denses": 1,
        "box_norm": True,
        **fields,
    }
    if head.endswith("maskrcnn"):
        model |= {**DETECTRON2_MASKS, "mask_norm": True}
    return dataclasses.replace(
        _COCO,
        run_dir=Path("runs") / name,
        model=ModelConfig(name=f"{head}_resnest50d_fpn", **model),
    )


COCO = _resnest("coco", "maskrcnn")
"""ResNeSt, Table 6: Mask R-CNN as its authors train it with detectron2 (``d2/configs``), AP 42.81
and 38.14 %; on ResNeSt-101 45.75 and 40.65, on ResNet-50 39.97 and 36.05. The batch norms of
backbone, pyramid and heads take the statistics of the whole batch on all devices; four convolutions
stand before one fully connected layer. The authors took the statistics of batch norms anew before
the evaluation: `senet-jax evaluate runs/coco --bn-batches 200`."""

COCO_FASTER = _resnest("coco-faster", "fasterrcnn")
"""ResNeSt, Table 5: Faster R-CNN, AP 42.33 %; on ResNeSt-101 44.72, on ResNet-50 39.25."""

COCO_CASCADE = _resnest("coco-cascade", "cascadercnn", **DETECTRON2_CASCADE)
"""ResNeSt, Table 5: Cascade R-CNN, AP 45.41 %; on ResNeSt-101 47.50, on ResNeSt-200 49.03, on
ResNet-50 42.52."""

COCO_CASCADE_MASK = _resnest("coco-cascade-mask", "cascademaskrcnn", **DETECTRON2_CASCADE)
"""ResNeSt, Table 6: Cascade Mask R-CNN, AP 46.19 and 39.55 %; on ResNeSt-101 48.30 and 41.56, on
ResNet-50 43.06 and 37.19."""

_THREE_TIMES = _resnest(
    "coco-cascade-mask-3x", "cascademaskrcnn", **DETECTRON2_CASCADE, mask_convs=8
)

COCO_THREE_TIMES = dataclasses.replace(
    _THREE_TIMES,
    epochs=36,
    model=dataclasses.replace(_THREE_TIMES.model, name="cascademaskrcnn_resnest200e_fpn"),
    data=dataclasses.replace(
        _COCO.data, objects=dataclasses.replace(_COCO.data.objects, short=(640, 864), long=1440)
    ),
    optimizer=dataclasses.replace(_COCO.optimizer, milestones=(32, 34)),
)
"""The same on ResNeSt-200 for 270,000 steps (3x): larger images and twice as many convolutions for
masks, AP 50.54 and 44.21 %. The authors also cropped each image to nine tenths of its sides, which
is not offered here."""

COCO_SENET = dataclasses.replace(
    _COCO,
    run_dir=Path("runs/coco-senet"),
    epochs=24,
    model=ModelConfig(name="fasterrcnn_legacy_seresnet50_fpn"),
    data=dataclasses.replace(
        _COCO.data, objects=dataclasses.replace(_COCO.data.objects, short=(800,))
    ),
    optimizer=dataclasses.replace(_COCO.optimizer, milestones=(16, 21.33), warmup_epochs=0.07),
)
"""SENet, Table 7: Faster R-CNN with the settings of Detectron, 180,000 steps of 16 images (2x), AP
40.4 %; on SE-ResNet-101 41.9, without SE 38.0 and 39.9 (``--model.attention.kind none``). The paper
does not say that there is a pyramid; the figures without SE are those of Detectron with one."""

COCO_TORCHVISION = dataclasses.replace(
    _COCO,
    run_dir=Path("runs/coco-torchvision"),
    epochs=26,
    model=ModelConfig(name="maskrcnn_resnet50_fpn"),
    data=COCO_SENET.data,
    optimizer=dataclasses.replace(_COCO.optimizer, milestones=(16, 22), decay_all=True),
)
"""torchvision (``references/detection``): Mask R-CNN on ResNet-50, AP 37.9 and 34.6 %; Faster
R-CNN, ``--model.name fasterrcnn_resnet50_fpn``, 37.0. All batch norms of the backbone kept their
statistics: ``--model.frozen-norms 1 2 3 4 5``."""

DETECTION: dict[str, TrainConfig] = {
    "scenes-detection": SCENES_DETECTION,
    "nuclei": NUCLEI,
    "bccd": BCCD,
    "coco": COCO,
    "coco-faster": COCO_FASTER,
    "coco-cascade": COCO_CASCADE,
    "coco-cascade-mask": COCO_CASCADE_MASK,
    "coco-cascade-mask-3x": COCO_THREE_TIMES,
    "coco-senet": COCO_SENET,
    "coco-torchvision": COCO_TORCHVISION,
}
"""The presets of detection by name."""
