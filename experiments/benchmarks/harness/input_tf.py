"""Photographs through tf.data's fused decode-and-crop, on request: a peer of ``input.py``.

Run under a Python that has TensorFlow. Arguments and answers are those of ``input_torch.py``; the
workers are threads.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf


def main() -> None:
    """Answers requests until there are no more."""
    folder, size, batch, workers = sys.argv[1], *map(int, sys.argv[2:5])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(max(workers, 1))
    files = sorted(str(file) for file in Path(folder).glob("*/*"))

    def load(file: Any) -> Any:
        data = tf.io.read_file(file)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros((1, 0, 4)),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.stack([begin[0], begin[1], extent[0], extent[1]])
        image = tf.image.decode_and_crop_jpeg(data, box, channels=3)
        image = tf.image.resize(image, (size, size), "bilinear")
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

    data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files))
    data = data.map(load, num_parallel_calls=max(workers, 1)).batch(batch).prefetch(1)
    for _ in data:
        pass
    print(json.dumps({"tensorflow": tf.__version__}), flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        for _ in data:
            pass
        print(json.dumps(time.process_time() - began), flush=True)


if __name__ == "__main__":
    main()
