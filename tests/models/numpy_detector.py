"""Detectors by detectron2's conventions in NumPy, from the maps of the pyramid on.

Written from the descriptions of Faster, Mask and Cascade R-CNN, one image and one box at a time, in
float64. Nothing is imported from the package. A detector with one stage has a box for each class, a
cascade has one box for all classes.
"""

import dataclasses
import types

import numpy as np
from numpy_layers import conv, relu

STRIDES = (4, 8, 16, 32, 64)
WEIGHTS = np.array([10.0, 10.0, 5.0, 5.0])
TALLEST = np.log(1000 / 16)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def dense(x, params):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def iou(a, b):
    found = np.zeros((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            width = min(one[2], other[2]) - max(one[0], other[0])
            height = min(one[3], other[3]) - max(one[1], other[1])
            if width > 0 and height > 0:
                inner = width * height
                areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
                found[i, j] = inner / (sum(areas) - inner)
    return found


def encode(boxes, anchors, weights):
    sides, of_anchor = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    centre, from_centre = boxes[:, :2] + sides / 2, anchors[:, :2] + of_anchor / 2
    shift, growth = (centre - from_centre) / of_anchor, np.log(sides / of_anchor)
    return np.concatenate([shift, growth], 1) * weights


def decode(deltas, anchors, weights):
    deltas = deltas / weights
    sides = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + sides / 2 + deltas[..., :2] * sides
    half = sides * np.exp(np.minimum(deltas[..., 2:], TALLEST)) / 2
    return np.concatenate([centre - half, centre + half], -1)


def clip(boxes, size):
    height, width = np.broadcast_arrays(*size)
    return np.minimum(np.maximum(boxes, 0), np.stack([width, height, width, height], -1))


def nms(boxes, scores, threshold):
    """Indices of the boxes that are kept, from the best."""
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best = left.pop(0)
        kept.append(best)
        over = iou(boxes[best][None], boxes[left])[0] if left else []
        left = [each for each, overlap in zip(left, over, strict=True) if overlap <= threshold]
    return kept


def anchors_of(sizes, ratios, grids):
    """The anchors of each level, in the order row, column, ratio."""
    found = []
    for size, (rows, columns), stride in zip(sizes, grids, STRIDES, strict=True):
        level = []
        for row in range(rows):
            for column in range(columns):
                for ratio in ratios:
                    width = np.sqrt(size**2 / ratio)
                    half = np.array([width, width * ratio]) / 2
                    centre = np.array([column, row]) * stride
                    level.append(np.concatenate([centre - half, centre + half]))
        found.append(np.array(level))
    return found


def axis_weights(low, high, bins, cells):
    """The weight of each cell of an axis in each bin from low to high, aligned and adaptive."""
    size = (high - low) / bins
    count = int(np.ceil(size))
    weights = np.zeros((bins, cells))
    for at in range(bins):
        for sample in range(count):
            place = low - 0.5 + (at + (sample + 0.5) / count) * size
            if -1 <= place <= cells:
                place = min(max(place, 0), cells - 1)
                below = int(place)
                above = min(below + 1, cells - 1)
                weights[at, below] += (1 - (place - below)) / count
                weights[at, above] += (place - below) / count
    return weights


def roi_align(feature, box, bins):
    """A box in pixels of the map, pooled to bins x bins."""
    down = axis_weights(box[1], box[3], bins, feature.shape[0])
    across = axis_weights(box[0], box[2], bins, feature.shape[1])
    return np.einsum("ph,qw,hwc->pqc", down, across, feature)


@dataclasses.dataclass
class Stage:
    """The boxes, classes and targets that a stage trains on, in all images."""

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    """Class from 1; 0 is the background."""
    deltas: np.ndarray
    objects: np.ndarray


class Detector:
    """A detector on the maps of a pyramid.

    Args:
        model: The network, whose fields alone are read.
        variables: Its variables.
        sizes: Rows and columns of the images without padding.
    """

    def __init__(self, model, variables, sizes):
        self.model, self.sizes = model, sizes
        self.params, self.statistics = variables["params"], variables["batch_stats"]
        overlaps = (model.box_high, *getattr(model, "later_overlaps", ()))
        self.stages = [
            types.SimpleNamespace(
                overlap=overlap, weights=number * WEIGHTS, suffix=str(number) if number > 1 else ""
            )
            for number, overlap in enumerate(overlaps, 1)
        ]

    def norm(self, x, path, train):
        of, at = path
        params, own = self.params[of][at]["bn"], self.statistics[of][at]["bn"]
        mean, var = own["mean"], own["var"]
        if train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean) / np.sqrt(var + 1e-5)
        return x * np.asarray(params["scale"]) + np.asarray(params["bias"])

    def layers(self, x, of, count, train):
        for index in range(1, count + 1):
            params = self.params[of][f"conv{index}"]["conv"]
            x = conv(x, params)
            normed = "bias" not in params
            x = relu(self.norm(x, (of, f"conv{index}"), train) if normed else x + params["bias"])
        return x

    def rpn(self, levels):
        """Logits and deltas of each level: images, anchors."""
        params = self.params["rpn"]
        logits, deltas = [], []
        for x in levels:
            x = relu(conv(x, params["conv1"]) + np.asarray(params["conv1"]["bias"]))
            heads = (
                conv(x, params[name]) + np.asarray(params[name]["bias"])
                for name in ("cls_logits", "bbox_pred")
            )
            scores, boxes = heads
            logits.append(scores.reshape(len(x), -1))
            deltas.append(boxes.reshape(len(x), -1, 4))
        return logits, deltas

    def anchors(self, levels):
        grids = [level.shape[1:3] for level in levels]
        return anchors_of(self.model.anchor_sizes, self.model.anchor_ratios, grids)

    def proposals(self, levels, before, after):
        """For each image, the boxes from the best one, and the places that there are for them."""
        logits, deltas = self.rpn(levels)
        found, places = [], 0
        for image, size in enumerate(self.sizes):
            boxes, scores, places = [], [], 0
            for own, moves, anchors in zip(logits, deltas, self.anchors(levels), strict=True):
                top = np.argsort(-own[image], kind="stable")[:before]
                places += len(top)
                own_boxes = clip(decode(moves[image][top], anchors[top], 1), size)
                there = (own_boxes[:, 2:] - own_boxes[:, :2] > 1e-3).all(1)
                own_boxes, own_scores = own_boxes[there], own[image][top][there]
                kept = nms(own_boxes, own_scores, self.model.rpn_nms)
                boxes.append(own_boxes[kept])
                scores.append(own_scores[kept])
            boxes, scores = np.concatenate(boxes), np.concatenate(scores)
            found.append(boxes[np.argsort(-scores, kind="stable")[:after]])
        return found, min(places, after)

    def pool(self, levels, images, boxes, bins):
        pooled = []
        for image, box in zip(images, boxes, strict=True):
            side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
            level = int(np.clip(np.floor(4 + np.log2(side / 224 + 1e-8)), 2, 5)) - 2
            pooled.append(roi_align(levels[level][image], box / STRIDES[level], bins))
        return np.array(pooled)

    def box_outputs(self, stage, levels, images, boxes, train):
        """Logits, the background last, and deltas (RoI, box, 4)."""
        x = self.pool(levels, images, boxes, self.model.box_bins)
        x = self.layers(x, f"box_head{stage.suffix}", self.model.box_convs, train)
        head = self.params[f"box_head{stage.suffix}"]
        kernel = np.asarray(head["dense1"]["kernel"], np.float64)
        first = {"kernel": kernel.reshape(-1, kernel.shape[-1]), "bias": head["dense1"]["bias"]}
        x = relu(dense(x.reshape(len(x), -1), first))
        for index in range(2, self.model.box_denses + 1):
            x = relu(dense(x, head[f"dense{index}"]))
        predictor = self.params[f"box_predictor{stage.suffix}"]
        deltas = dense(x, predictor["bbox_pred"]).reshape(len(x), -1, 4)
        return dense(x, predictor["cls_score"]), deltas

    def mask_logits(self, levels, images, boxes, labels, train):
        x = self.pool(levels, images, boxes, self.model.mask_bins)
        x = self.layers(x, "mask_head", self.model.mask_convs, train)
        up = self.params["mask_head"]["deconv"]
        n, height, width, _ = x.shape
        y = np.zeros((n, 2 * height, 2 * width, len(up["bias"])))
        for row in (0, 1):
            for column in (0, 1):
                y[:, row::2, column::2] = x @ np.asarray(up["kernel"][row, column], np.float64)
        y = relu(y + up["bias"])
        logits = conv(y, self.params["mask_head"]["logits"])
        logits = logits + np.asarray(self.params["mask_head"]["logits"]["bias"])
        return np.stack([each[..., label - 1] for each, label in zip(logits, labels, strict=True)])

    def detect(self, levels):
        """For each image, the detections from the best one.

        ``paths`` then has the proposals of each image, and their boxes after each stage. A stage
        with a box for each class has none.
        """
        model = self.model
        all_boxes, _ = self.proposals(levels, model.pre_nms_test, model.post_nms_test)
        found, self.paths = [], []
        for image, (boxes, size) in enumerate(zip(all_boxes, self.sizes, strict=True)):
            images, scores, path = [image] * len(boxes), [], [boxes]
            for stage in self.stages:
                logits, deltas = self.box_outputs(stage, levels, images, boxes, False)
                scores.append(softmax(logits))
                moved = clip(decode(deltas, boxes[:, None], stage.weights), size)
                boxes = moved[:, 0]
                path += [boxes] if moved.shape[1] == 1 else []
            self.paths.append(path)
            scores = np.mean(scores, 0)[:, :-1]
            rows = []
            for label in range(1, scores.shape[1] + 1):
                own = scores[:, label - 1]
                boxes = moved[:, label - 1 if moved.shape[1] > 1 else 0]
                there = (own > model.score_threshold) & (boxes[:, 2:] > boxes[:, :2]).all(1)
                own, boxes = own[there], boxes[there]
                rows += [(own[at], label, boxes[at]) for at in nms(boxes, own, model.nms_threshold)]
            rows.sort(key=lambda row: -row[0])
            scores, labels, boxes = (
                np.array(each) for each in zip(*rows[: model.detections], strict=True)
            )
            each = {"scores": scores, "labels": labels, "boxes": boxes}
            if "mask_head" in self.params:
                logits = self.mask_logits(levels, [image] * len(boxes), boxes, labels, False)
                each["masks"] = sigmoid(logits)
            found.append(each)
        return found

    def plan(self, levels, targets, drawn_anchors, drawn_boxes):
        """The pairs that training compares, for anchors and proposals that were drawn.

        Args:
            levels: The maps of the pyramid.
            targets: The objects.
            drawn_anchors: Of each image, numbers of the anchors and which are positive.
            drawn_boxes: The same of the proposals, behind which the objects are counted.
        """
        model = self.model
        objects = [targets["boxes"][i][targets["valid"][i]].astype(float) for i in range(2)]
        labels = [targets["labels"][i][targets["valid"][i]] for i in range(2)]
        anchors = np.concatenate(self.anchors(levels))
        of_anchors = []
        for (drawn, positive), own in zip(drawn_anchors, objects, strict=True):
            overlaps = iou(own, anchors)
            high, low = self.kinds(overlaps, model.rpn_high, model.rpn_low, anchors)
            high |= (overlaps == overlaps.max(1, keepdims=True)).any(0) if len(own) else False
            assert (high[drawn] == positive).all()
            assert (low[drawn] | positive).all()
            assert positive.sum() == min(high.sum(), model.rpn_samples * model.rpn_positive)
            assert len(drawn) == min(model.rpn_samples, positive.sum() + (low & ~high).sum())
            best = overlaps.argmax(0)[drawn[positive]] if len(own) else []
            of_anchors.append(encode(own[best], anchors[drawn[positive]], 1))
        boxes, places = self.proposals(levels, model.pre_nms_train, model.post_nms_train)
        rows = []
        for image, (drawn, positive) in enumerate(drawn_boxes):
            empty = np.full((places - len(boxes[image]), 4), np.nan)
            slots = np.flatnonzero(targets["valid"][image])
            given = np.full((len(targets["valid"][image]), 4), np.nan)
            given[slots] = objects[image]
            every = np.concatenate([boxes[image], empty, given])
            high = iou(objects[image], every).max(0, initial=0) >= model.box_high
            assert (high[drawn] == positive).all()
            assert positive.sum() == min(high.sum(), int(model.box_samples * model.box_positive))
            rows.append(every[drawn])
            assert np.isfinite(rows[-1]).all()
        stages = []
        images = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        boxes = np.concatenate(rows)
        for stage in self.stages:
            own, to, best = [], [], []
            for image, box in zip(images, boxes, strict=True):
                overlaps = iou(objects[image], box[None])[:, 0]
                high = overlaps.max(initial=0) >= stage.overlap
                best.append(overlaps.argmax() if high else -1)
                own.append(labels[image][best[-1]] if high else 0)
                to.append(objects[image][best[-1]] if high else box)
            deltas = encode(np.array(to), boxes, stage.weights)
            stages.append(Stage(images, boxes, np.array(own), deltas, np.array(best)))
            _, moves = self.box_outputs(stage, levels, images, boxes, True)
            moved = decode(moves[:, 0], boxes, stage.weights)
            moved = clip(moved, [self.sizes[images, axis] for axis in (0, 1)])
            there = (moved[:, 2:] > moved[:, :2]).all(1)
            images, boxes = np.array(images)[there], moved[there]
        return types.SimpleNamespace(
            anchors=drawn_anchors, deltas=of_anchors, stages=stages, targets=targets
        )

    @staticmethod
    def kinds(overlaps, high, low, boxes):
        greatest = overlaps.max(0, initial=0) if len(overlaps) else np.zeros(len(boxes))
        return greatest >= high, greatest < low

    def losses(self, levels, plan):
        """The losses by name; boxes and targets are those of the plan."""
        model = self.model
        logits, deltas = (np.concatenate(each, 1) for each in self.rpn(levels))
        objectness = distance = 0
        for image, (drawn, positive) in enumerate(plan.anchors):
            own = logits[image][drawn]
            objectness += np.logaddexp(0, own).sum() - own[positive].sum()
            distance += np.abs(deltas[image][drawn[positive]] - plan.deltas[image]).sum()
        count = model.rpn_samples * len(self.sizes)
        found = {"loss_objectness": objectness / count, "loss_rpn_box_reg": distance / count}
        for stage, on in zip(self.stages, plan.stages, strict=True):
            logits, deltas = self.box_outputs(stage, levels, on.images, on.boxes, True)
            classes = np.where(on.labels > 0, on.labels - 1, logits.shape[1] - 1)
            rows = np.arange(len(logits))
            entropies = np.log(np.exp(logits).sum(1)) - logits[rows, classes]
            column = np.maximum(on.labels - 1, 0) if deltas.shape[1] > 1 else 0
            distances = np.abs(deltas[rows, column] - on.deltas).sum(1)
            suffix = f"_{stage.suffix}" if stage.suffix else ""
            found[f"loss_classifier{suffix}"] = entropies.mean()
            found[f"loss_box_reg{suffix}"] = distances[on.labels > 0].sum() / len(logits)
        if "mask_head" in self.params:
            on, high = plan.stages[0], plan.stages[0].labels > 0
            images, boxes = on.images[high], on.boxes[high]
            logits = self.mask_logits(levels, images, boxes, on.labels[high], True)
            shares = []
            for image, box, own in zip(images, boxes, on.objects[high], strict=True):
                mask = plan.targets["masks"][image][plan.targets["valid"][image]][own]
                shares.append(roi_align(mask[..., None], box, 2 * model.mask_bins)[..., 0])
            wanted = np.array(shares) >= 0.5
            found["loss_mask"] = (np.logaddexp(0, logits) - wanted * logits).mean()
        return found
