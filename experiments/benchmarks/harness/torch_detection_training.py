"""The torchvision side of ``experiments.benchmarks.same_detection``: Mask R-CNN, trained plainly.

Run under a Python that has torch and torchvision. Its arguments are a folder with ``job.npz``,
which the JAX side wrote, and a seed for the drawing of anchors and proposals. The job has:

* ``settings``: the network and the optimizer, as JSON;
* ``weights/NAME``: the initial state dict;
* ``images`` (n, h, w, 3), 0 to 255, and their objects, of which those of image i are the rows from
  ``first[i]`` to ``first[i + 1]`` of ``boxes``, ``labels`` and ``masks`` (bits, a row of pixels
  padded to bytes);
* ``order`` (steps, batch), the images of each step, and ``rates``, its learning rate;
* ``held_out`` (m, h, w, 3).

It writes ``torch.npz``: the named losses of the first batch without any drawing ("first/NAME") and
of each step ("losses/NAME"), the final state dict, and the detections in the held-out images with
masks that torchvision pasted into them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.models import resnet
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

Arrays = dict[str, np.ndarray]

CHANNELS = (64, 128, 256, 512)
"""Channels of the stages of torchvision's ResNets of basic blocks."""
EVERYTHING = 10**6
"""More anchors than an image has."""


def build(settings: dict[str, Any]) -> MaskRCNN:
    """Mask R-CNN on a ResNet of basic blocks, with norms that are trained."""
    body = resnet.ResNet(resnet.BasicBlock, settings["blocks"])
    layers = {f"layer{index + 1}": str(index) for index in range(len(CHANNELS))}
    width, mask_width = settings["pyramid_width"], settings["mask_width"]
    ratios, classes = tuple(settings["anchor_ratios"]), settings["num_classes"]
    sizes = tuple(map(tuple, settings["anchor_sizes"]))
    anchors = AnchorGenerator(sizes, (ratios,) * len(sizes))
    bins, mask_bins = settings["box_bins"], settings["mask_bins"]

    def pooling(side: int) -> MultiScaleRoIAlign:
        return MultiScaleRoIAlign(list(layers.values()), side, settings["roi_samples"])

    return MaskRCNN(
        BackboneWithFPN(body, layers, list(CHANNELS), width),
        min_size=min(settings["size"]),
        max_size=max(settings["size"]),
        image_mean=settings["mean"],
        image_std=settings["std"],
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(width, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_train=settings["pre_nms_train"],
        rpn_pre_nms_top_n_test=settings["pre_nms_test"],
        rpn_post_nms_top_n_train=settings["post_nms_train"],
        rpn_post_nms_top_n_test=settings["post_nms_test"],
        rpn_batch_size_per_image=settings["rpn_samples"],
        rpn_positive_fraction=settings["rpn_positive"],
        box_roi_pool=pooling(bins),
        box_head=TwoMLPHead(width * bins**2, settings["box_width"]),
        box_predictor=FastRCNNPredictor(settings["box_width"], classes),
        box_batch_size_per_image=settings["box_samples"],
        box_positive_fraction=settings["box_positive"],
        box_detections_per_img=settings["detections"],
        mask_roi_pool=pooling(mask_bins),
        mask_head=MaskRCNNHeads(width, [mask_width] * settings["mask_convs"], 1),
        mask_predictor=MaskRCNNPredictor(mask_width, mask_width, classes),
    )


def start(job: Arrays, settings: dict[str, Any]) -> MaskRCNN:
    """The network with the initial weights, in training mode."""
    model = build(settings)
    weights = {
        name.removeprefix("weights/"): torch.from_numpy(array)
        for name, array in job.items()
        if name.startswith("weights/")
    }
    counters = {name: x for name, x in model.state_dict().items() if name.endswith("_tracked")}
    model.load_state_dict({**counters, **weights}, strict=True)
    return model.train()


def image_of(pixels: np.ndarray) -> torch.Tensor:
    """An image as torchvision takes it: channels first, 0 to 1."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)


def batch(job: Arrays, chosen: np.ndarray) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """The images of a step and their objects."""
    width, targets = job["images"].shape[2], []
    for index in chosen.tolist():
        rows = slice(*job["first"][index : index + 2].tolist())
        masks = np.unpackbits(job["masks"][rows], axis=-1, count=width)
        targets.append(
            {
                "boxes": torch.from_numpy(job["boxes"][rows]),
                "labels": torch.from_numpy(job["labels"][rows]),
                "masks": torch.from_numpy(masks),
            }
        )
    return [image_of(job["images"][index]) for index in chosen.tolist()], targets


def first_losses(job: Arrays, settings: dict[str, Any]) -> dict[str, float]:
    """The losses of the first batch over all its anchors and proposals, so that none is drawn."""
    model = start(job, settings)
    everything = BalancedPositiveNegativeSampler(EVERYTHING, 1.0)
    model.rpn.fg_bg_sampler = model.roi_heads.fg_bg_sampler = everything
    with torch.no_grad():
        losses = model(*batch(job, job["order"][0]))
    return {name: loss.item() for name, loss in losses.items()}


def train(
    job: Arrays, settings: dict[str, Any], seed: int
) -> tuple[MaskRCNN, dict[str, list[float]]]:
    """Trains by AdamW; weight decay is of kernels alone, as in senet_jax."""
    model = start(job, settings)
    torch.manual_seed(seed)
    parameters = list(model.parameters())
    groups = [
        {
            "params": [each for each in parameters if each.ndim > 1],
            "weight_decay": settings["weight_decay"],
        },
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = settings["b1"], settings["b2"]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=betas, eps=1e-8)
    found: dict[str, list[float]] = {}
    for chosen, rate in zip(job["order"], job["rates"].tolist(), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = model(*batch(job, chosen))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        for name, loss in losses.items():
            found.setdefault(name, []).append(loss.item())
    return model, found


@torch.inference_mode()
def detect(model: MaskRCNN, images: np.ndarray) -> Arrays:
    """The detections in all images, one image after the other; ``counts`` of them in each."""
    model.eval()
    found = [model([image_of(image)])[0] for image in images]
    # The threshold of torchvision's own examples.
    masks = [np.packbits(each["masks"][:, 0].numpy() > 0.5, axis=-1) for each in found]
    arrays = {
        name: torch.cat([each[name] for each in found]).numpy()
        for name in ("boxes", "labels", "scores")
    }
    counts = np.array([len(each["scores"]) for each in found])
    return {**arrays, "masks": np.concatenate(masks), "counts": counts}


def main() -> None:
    """Reads the job, trains and writes the result."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    with np.load(folder / "job.npz") as arrays:
        job = dict(arrays)
    settings = json.loads(str(job["settings"]))
    first = first_losses(job, settings)
    model, losses = train(job, settings, seed)
    final = {name: x.numpy() for name, x in model.state_dict().items()}
    parts = {
        "first": first,
        "losses": losses,
        "weights": final,
        "found": detect(model, job["held_out"]),
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    flat = {f"{part}/{name}": x for part, own in parts.items() for name, x in own.items()}
    np.savez(folder / "torch.npz", allow_pickle=False, **flat)


if __name__ == "__main__":
    main()
