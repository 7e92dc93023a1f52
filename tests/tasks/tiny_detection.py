"""Detection by a network that is small enough for tests, and pictures that it can learn."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from senet_jax.tasks.detection import Detection

STRIDE, FOUND = 8, 12


class Tiny(nn.Module):
    """Each cell of a grid says a class and a box around its centre; all masks are one."""

    classes: int
    masks: bool = True

    @nn.compact
    def __call__(self, images, sizes, targets=None, train=False):
        inside = [
            jnp.arange(side) < sizes[:, axis, None] for axis, side in enumerate(images.shape[1:3])
        ]
        images = images * (inside[0][:, :, None] & inside[1][:, None])[..., None]
        x = nn.relu(nn.Conv(16, (STRIDE, STRIDE), (STRIDE, STRIDE), name="stem")(images))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        logits = nn.Conv(self.classes, (1, 1), name="head")(x)
        reach = nn.softplus(nn.Conv(4, (1, 1), name="reach")(x)) * STRIDE
        mask = self.param("mask", nn.initializers.zeros, (28, 28))
        n, h, w, _ = logits.shape
        y, x = ((jnp.arange(side) + 0.5) * STRIDE for side in (h, w))
        centre = jnp.stack(jnp.meshgrid(x, y), axis=-1)
        boxes = jnp.concatenate([centre - reach[..., :2], centre + reach[..., 2:]], axis=-1)
        logits, boxes = logits.reshape(n, h * w, -1), boxes.reshape(n, h * w, 4)
        if train:
            return self.losses(logits, boxes, centre.reshape(-1, 2), mask, targets)
        most = jnp.tile(sizes[:, ::-1], 2)[:, None]
        scores = jax.nn.softmax(logits)[..., 1:]
        best = scores.max(-1) * (boxes[..., 2] - boxes[..., 0] > 1)
        found, cells = jax.lax.top_k(best, FOUND)
        result = {
            "boxes": jnp.clip(jnp.take_along_axis(boxes, cells[..., None], 1), 0, most),
            "labels": jnp.take_along_axis(scores.argmax(-1) + 1, cells, 1).astype(jnp.int32),
            "scores": found,
            "valid": found > 0.3,
        }
        if self.masks:
            result["masks"] = jnp.broadcast_to(nn.sigmoid(mask), (n, FOUND, 28, 28))
        return result

    def losses(self, logits, boxes, centre, mask, targets):
        true, there = targets["boxes"], targets["valid"] & ~targets["crowd"]
        inside = (centre[:, None] > true[:, None, :, :2]) & (centre[:, None] < true[:, None, :, 2:])
        inside = inside.all(-1) & there[:, None]
        any_, of = inside.any(-1), inside.argmax(-1)
        labels = jnp.where(any_, jnp.take_along_axis(targets["labels"], of, 1), 0)
        wanted = jnp.take_along_axis(true, of[..., None], 1)
        away = jnp.where(any_, jnp.abs(boxes - wanted).mean(-1) / STRIDE, 0)
        count = jnp.maximum(any_.sum(), 1)
        losses = {
            "loss_classifier": optax.softmax_cross_entropy_with_integer_labels(
                logits, labels
            ).mean(),
            "loss_box_reg": away.sum() / count,
        }
        if self.masks:
            share = targets["masks"].mean((2, 3))
            bce = optax.sigmoid_binary_cross_entropy(mask.mean(), share)
            losses["loss_mask"] = jnp.where(there, bce, 0).sum() / jnp.maximum(there.sum(), 1)
        return losses


@dataclasses.dataclass(frozen=True)
class TinyDetection(Detection):
    """Detection by ``Tiny``; whether it has masks the name of the network says."""

    @classmethod
    def network(cls, config, classes):
        return Tiny(classes, cls.has_masks(config))


COLORS = {"red": (220, 40, 40), "blue": (40, 40, 220)}


def write_rectangles(root, counts=(36, 10), sizes=((32, 56), (56, 32))):
    """Coloured rectangles on grey in COCO's format; the categories are 3 and 7."""
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "val"), counts, strict=True):
        folder = root / f"{split}2017"
        folder.mkdir(parents=True)
        images, annotations = [], []
        for index in range(count):
            height, width = sizes[index % len(sizes)]
            pixels = rng.normal(128, 12, (height, width, 3))
            images.append(
                {"id": 100 + index, "file_name": f"{index}.png", "height": height, "width": width}
            )
            for half in range(2 if index % 5 else 0):
                across, down = rng.integers(12, 17, 2).tolist()
                x = int(rng.integers(half * width // 2, (half + 1) * width // 2 - across + 1))
                y = int(rng.integers(0, height - down))
                kind = int(rng.integers(2))
                pixels[y : y + down, x : x + across] = list(COLORS.values())[kind]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": 100 + index,
                        "category_id": (3, 7)[kind],
                        "bbox": [x, y, across, down],
                        "area": across * down,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + across, y, x + across, y + down, x, y + down]],
                    }
                )
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
        data = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(data))
    return root
