"""torchvision's detectors with weights drawn by rule, in a process of its own.

    TORCHVISION_PYTHON=PYTHON python -m tests.interchange.detection_oracle

writes ``torch_detection.json`` anew: what torchvision 0.28.0 (torch 2.13.0, CPU) makes of small
detectors, detections in float32, losses and gradients in float64. Its wheel need not fit the build
of PyTorch: NMS is the greedy loop below, and RoIAlign its own form in Python. That form repeats the
last pixel beyond a map, where the compiled one, which holds here, has 0. So all images end four
pixels or more before the padded ones, where no sample lies beyond a map.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.interchange.dense import checksum
from tests.interchange.goldens import draw
from tests.ops.torchvision_oracle import torchvision

FILE = Path(__file__).with_name("torch_detection.json")

PROGRAM = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from goldens import draw
from torchvision.models import resnet
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection import faster_rcnn, mask_rcnn, rpn as rpns
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import boxes as box_ops

torch.set_num_threads(2)

def nms(boxes, scores, threshold):
    # The best box that is left, until none is.
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        overlaps = box_ops.box_iou(boxes[best][None], boxes[left])[0]
        left = left[~(overlaps > threshold)]
    return torch.tensor(kept, dtype=torch.long)

def build(spec):
    second, masks = spec["name"].endswith("_v2"), spec["name"].startswith("maskrcnn")
    norm, width = torch.nn.BatchNorm2d if second else None, spec["pyramid_width"]
    dense, classes = spec["box_width"], spec["num_classes"]
    block = resnet.Bottleneck if spec["bottleneck"] else resnet.BasicBlock
    body = resnet.ResNet(block, spec["blocks"])
    channels = [each * block.expansion for each in (64, 128, 256, 512)]
    layers = {{f"layer{{index + 1}}": str(index) for index in range(4)}}
    backbone = BackboneWithFPN(body, layers, channels, width, norm_layer=norm)
    anchors = AnchorGenerator(spec["anchors"], (tuple(spec["ratios"]),) * 5)
    count = anchors.num_anchors_per_location()[0]
    if second:
        convs = [width] * 4
        box_head = faster_rcnn.FastRCNNConvFCHead((width, 7, 7), convs, [dense], norm_layer=norm)
    else:
        box_head = faster_rcnn.TwoMLPHead(49 * width, dense)
    parts = dict(
        rpn_anchor_generator=anchors,
        rpn_head=rpns.RPNHead(width, count, conv_depth=2 if second else 1),
        box_head=box_head,
        box_predictor=faster_rcnn.FastRCNNPredictor(dense, classes),
    )
    if masks:
        own = spec["mask_width"]
        parts |= dict(
            mask_head=mask_rcnn.MaskRCNNHeads(width, [own] * 4, 1, norm_layer=norm),
            mask_predictor=mask_rcnn.MaskRCNNPredictor(own, own, classes),
        )
    model = (MaskRCNN if masks else FasterRCNN)(backbone, **parts, **spec["arguments"])
    state = model.state_dict()
    drawn = {{key: torch.from_numpy(draw(key, tuple(x.shape))) for key, x in state.items()}}
    model.load_state_dict(drawn)
    return model

def prepare(spec, images, sizes):
    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        library.impl("nms", nms, "CPU")
    box_ops._assert_has_ops = lambda: None
    tuples = [tuple(size) for size in sizes.tolist()]
    return build(spec).to(images.dtype), ImageList(images.permute(0, 3, 1, 2), tuples)

def detect(spec, images, sizes):
    model, batch = prepare(spec, images, sizes)
    model.eval()
    with torch.no_grad():
        features = model.backbone(batch.tensors)
        proposals, _ = model.rpn(batch, features)
        found, _ = model.roi_heads(features, proposals, batch.image_sizes)
    entries = [(key, list(x.shape)) for key, x in model.state_dict().items()]
    return entries, [[(key, arrays(each[key])) for key in each] for each in found]

def losses(spec, images, sizes, targets, drawn):
    model, batch = prepare(spec, images, sizes)
    model.train()
    names = ("boxes", "labels", "masks")[:len(targets[0])]
    targets = [dict(zip(names, each)) for each in targets]
    for each in targets:
        each["labels"] = each["labels"].long()

    def fixed(chosen):
        # The anchors or proposals of each image that were drawn, in place of a random sampler.
        def sampler(labels):
            masks = [[torch.zeros(len(own), dtype=torch.uint8) for own in labels] for _ in "pn"]
            for image, pair in enumerate(chosen):
                for mask, index in zip((masks[0][image], masks[1][image]), pair):
                    mask[index] = 1
            return masks
        return sampler

    assign = model.rpn.assign_targets_to_anchors

    def assigned(*arguments):
        # torchvision's labels are of float32, in which it would take the cross-entropy.
        labels, boxes = assign(*arguments)
        return [each.to(images.dtype) for each in labels], boxes

    model.rpn.assign_targets_to_anchors = assigned
    features = model.backbone(batch.tensors)
    if drawn:
        model.rpn.fg_bg_sampler = fixed(drawn[0])
        model.roi_heads.fg_bg_sampler = fixed(drawn[1])
    proposals, first = model.rpn(batch, features, targets)
    _, then = model.roi_heads(features, proposals, batch.image_sizes, targets)
    found = first | then
    sum(found.values()).backward()
    gradients = [(key, x.grad.numpy()) for key, x in model.named_parameters() if x.grad is not None]
    statistics = [(key, x.numpy()) for key, x in model.named_buffers() if "running" in key]
    counts = [len(each) for each in proposals]
    return [(key, float(x)) for key, x in found.items()], gradients, statistics, counts

def several(*calls):
    return [function(*call) for call in calls]

def function(which, *arguments):
    return globals()[which](*arguments)
"""


@dataclasses.dataclass(frozen=True)
class Detector:
    """A detector of torchvision, and the fields of the same one here."""

    name: str
    fields: dict[str, Any]
    """Those that both have, by the names that they have here."""
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further ones of torchvision's."""
    ours: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The same by the names that they have here."""

    @property
    def all_fields(self) -> dict[str, Any]:
        return {**self.fields, **self.ours}

    def spec(self) -> dict[str, Any]:
        """The arguments of ``build``."""
        sizes = self.fields["anchor_sizes"]
        count = len(sizes) // 5
        return {
            **self.fields,
            "name": self.name,
            "anchors": [tuple(sizes[i : i + count]) for i in range(0, len(sizes), count)],
            "ratios": self.fields["anchor_ratios"],
            "arguments": self.arguments,
        }


TINY = {
    "blocks": (1, 1, 1, 1),
    "bottleneck": False,
    "num_classes": 5,
    "pyramid_width": 16,
    "box_width": 32,
    "anchor_sizes": (16, 32, 64, 96, 128),
    "anchor_ratios": (0.5, 1.0, 2.0),
}
LIMITS = {
    "rpn_pre_nms_top_n_train": 60,
    "rpn_pre_nms_top_n_test": 60,
    "rpn_post_nms_top_n_train": 80,
    "rpn_post_nms_top_n_test": 80,
    "box_detections_per_img": 40,
}
SAME = {
    "pre_nms_train": 60,
    "pre_nms_test": 60,
    "post_nms_train": 80,
    "post_nms_test": 80,
    "detections": 40,
}
"""``LIMITS`` by the names that they have here."""


def tiny(name: str) -> Detector:
    """A small detector of a kind."""
    masks = {"mask_width": 8} if name.startswith("maskrcnn") else {}
    return Detector(name, {**TINY, **masks}, dict(LIMITS), dict(SAME))


def batch(sizes: list[tuple[int, int]], padding: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Normalized images, padded with zeros to multiples of 32, and their sizes."""
    height, width = (-(-max(side) // padding) * padding for side in zip(*sizes, strict=True))
    images = np.zeros((len(sizes), height, width, 3), np.float32)
    for image, (rows, columns) in zip(images, sizes, strict=True):
        rng = np.random.default_rng(1000 * rows + columns)
        image[:rows, :columns] = rng.standard_normal((rows, columns, 3))
    return images, np.array(sizes, np.int32)


def objects(sizes: np.ndarray, image: tuple[int, int], most: int = 4) -> dict[str, np.ndarray]:
    """Objects of each image of a batch, of which the last has none: ellipses in boxes."""
    rng = np.random.default_rng(len(sizes))
    n = len(sizes)
    found = {
        "boxes": np.zeros((n, most, 4), np.float32),
        "labels": np.zeros((n, most), np.int32),
        "valid": np.zeros((n, most), bool),
        "masks": np.zeros((n, most, *image), np.uint8),
    }
    rows, columns = np.ogrid[: image[0], : image[1]]
    for index, (height, width) in enumerate(sizes[:-1]):
        for slot in range(1 + index % most, most):
            corner = rng.uniform(0, 0.5, 2) * (width, height)
            sides = rng.uniform(0.2, 0.45, 2) * (width, height)
            x1, y1 = corner
            x2, y2 = corner + sides
            middle, half = corner + sides / 2, sides / 2
            inside = ((columns - middle[0]) / half[0]) ** 2 + ((rows - middle[1]) / half[1]) ** 2
            found["boxes"][index, slot] = x1, y1, x2, y2
            found["labels"][index, slot] = rng.integers(1, 5)
            found["valid"][index, slot] = True
            found["masks"][index, slot] = inside <= 1
    return found


def targets_of(found: dict[str, np.ndarray], masks: bool) -> list[list[np.ndarray]]:
    """The objects as torchvision takes them, without padding."""
    names = ("boxes", "labels", "masks")[: 2 + masks]
    return [
        [found[name][index][valid] for name in names] for index, valid in enumerate(found["valid"])
    ]


def doubled(arrays: Any) -> Any:
    """The same tree of arrays, those of float32 in float64."""
    if isinstance(arrays, dict):
        return {key: doubled(value) for key, value in arrays.items()}
    return arrays.astype(np.float64) if arrays.dtype == np.float32 else arrays


def direction(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A vector of length 1, of the shape of a parameter, drawn by rule."""
    found = draw(f"direction of {key}.bias", (int(np.prod(shape)),)).astype(np.float64)
    return (found / np.linalg.norm(found)).reshape(shape)


NAMES = tuple(f"{head}_resnet18_fpn{v}" for head in ("fasterrcnn", "maskrcnn") for v in ("", "_v2"))
SIZES = [(90, 70), (61, 120)]
"""Sizes of the images of the goldens."""
UNLIMITED = {"rpn_batch_size_per_image": 10**6, "rpn_positive_fraction": 1.0}
UNLIMITED |= {"box_batch_size_per_image": 10**6, "box_positive_fraction": 1.0}
"""torchvision's sampling takes all that there is."""
ALL = {"rpn_samples": 10**6, "rpn_positive": 1.0, "box_samples": 10**6, "box_positive": 1.0}
"""The same by the names that it has here."""


def of_all(name: str) -> Detector:
    """A small detector that trains on all anchors and proposals."""
    own = tiny(name)
    return dataclasses.replace(own, arguments=LIMITS | UNLIMITED, ours=SAME | ALL)


def main() -> None:
    """Writes the goldens."""
    images, sizes = batch(SIZES)
    targets = doubled(objects(sizes, images.shape[1:3]))
    golden, calls = [], []
    for name in NAMES:
        own = targets_of(targets, name.startswith("maskrcnn"))
        calls.append(["detect", tiny(name).spec(), images, sizes])
        calls.append(["losses", of_all(name).spec(), doubled(images), sizes, own, []])
    answers = iter(torchvision(PROGRAM, "several", *calls))
    for name in NAMES:
        entries, found = next(answers)
        losses, gradients, statistics, _ = next(answers)
        detections = []
        for each in map(dict, found):
            masks = each.pop("masks", None)
            each = {key: np.round(array.astype(float), 4).tolist() for key, array in each.items()}
            if masks is not None:
                each["mask_means"] = np.round(masks.mean((1, 2, 3), dtype=float), 5).tolist()
                each["mask_pixels"] = np.round(masks[:, 0, 27, 5].astype(float), 5).tolist()
            detections.append(each)
        shapes = {key: tuple(shape) for key, shape in entries if not key.endswith("_tracked")}
        golden.append(
            {
                "name": name,
                "entries": len(shapes),
                "sha256": checksum(shapes),
                "detections": detections,
                "losses": dict(losses),
                # The length of each, and its component along a vector.
                "gradients": {
                    key: [
                        float(f"{number:.12g}")
                        for number in (np.linalg.norm(x), np.sum(x * direction(key, x.shape)))
                    ]
                    for key, x in gradients
                },
                "statistics": {key: float(f"{x.mean():.12g}") for key, x in statistics},
            }
        )
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in golden)
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
