import itertools

import numpy as np
import pytest
from PIL import Image

from senet_jax.analysis.pictures import draw_images

PURE = ((220, 30, 30), (30, 200, 30), (40, 40, 230), (230, 210, 40), (200, 40, 200))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_image_is_drawn_in_its_colours_in_rows(tmp_path, count):
    images = np.array([np.full((8, 8, 3), color) for color in PURE], np.uint8)[:count]
    titles = ["a title that is too long for one line\nand another", *"bcde"][:count]
    file = draw_images(tmp_path / "new" / "images.png", images, titles)
    drawn = np.asarray(Image.open(file).convert("RGB"))
    places = []
    for color in PURE[:count]:
        rows, columns = np.nonzero((drawn == color).all(-1))
        assert len(rows) > 200**2
        places.append((rows.mean(), columns.mean()))
    for before, after in itertools.pairwise(places):
        assert after[0] > before[0] + 100 or after[1] > before[1] + 100


def test_grey_images_are_grey(tmp_path):
    image = np.full((1, 4, 4, 1), 100, np.uint8)
    drawn = np.asarray(Image.open(draw_images(tmp_path / "a.png", image, ["x"])).convert("RGB"))
    assert ((drawn == 100).all(-1)).sum() > 200**2
