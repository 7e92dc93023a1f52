import cv2
import jax
import numpy as np

from senet_jax.analysis.gates.grad_cam import grad_cam
from senet_jax.analysis.gates.plots import draw_grad_cam
from senet_jax.models.vgg import VGG


def last_maps(one, pixels):
    """The last feature maps, and the parameters of the classifier."""
    head = {name: one.variables["params"][name] for name in one.model.head_modules}
    trunk = {name: x for name, x in one.variables["params"].items() if name not in head}
    model = one.model.clone(features_only=True)
    maps = jax.jit(lambda x: model.apply({**one.variables, "params": trunk}, x, train=False))(
        pixels
    )
    return np.float64(maps[max(maps)]), head


def test_a_linear_head_on_means_gives_the_class_activation_map(network, member, images, pixels):
    one = member(network())
    last, head = last_maps(one, pixels)
    assert last.shape == (50, 4, 4, 24)
    kernel, bias = head["head"]["kernel"], head["head"]["bias"]
    cam = grad_cam(one, images.images, images.labels)
    # CAM (arXiv 1512.04150, eq. 2); the head takes means over the 16 pixels.
    expected = np.einsum("nhwc,cn->nhw", last, kernel[:, images.labels]) / 16
    assert (expected < 0).any()
    np.testing.assert_allclose(cam.coarse, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)
    assert cam.fine.shape == (50, 8, 8)
    logits = last.mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(cam.probability, jax.nn.softmax(logits), rtol=1e-4, atol=1e-5)
    likely = grad_cam(one, images.images)
    np.testing.assert_array_equal(likely.label, logits.argmax(axis=1))
    same = likely.label == images.labels
    assert same.any()
    np.testing.assert_allclose(likely.coarse[same], cam.coarse[same], rtol=1e-5)


def test_maps_of_vgg_are_those_before_the_dense_layers(member, images):
    one = member(VGG(blocks=(1,), widths=(4,), fc_width=6, num_classes=4, norm=True))
    # The maps of 14 pixels are 7x7, and fc6 is a matrix product.
    shown = np.tile(images.images[:3], (1, 2, 2, 1))[:, :14, :14]
    label = images.labels[:3]
    last, head = last_maps(one, np.float32((shown / 255 - 0.4) / 0.3))
    assert last.shape == (3, 7, 7, 4)
    fc6, fc7, out = (head[name] for name in one.model.head_modules)
    hidden = np.einsum("nhwc,hwcd->nd", last, fc6["kernel"]) + fc6["bias"]
    then = np.maximum(hidden, 0) @ fc7["kernel"][0, 0] + fc7["bias"]
    back = (out["kernel"][:, label].T * (then > 0)) @ fc7["kernel"][0, 0].T * (hidden > 0)
    gradient = np.einsum("nd,hwcd->nhwc", back, fc6["kernel"])
    expected = np.einsum("nhwc,nc->nhw", last, gradient.mean(axis=(1, 2)))
    assert np.abs(gradient).max() > 0
    cam = grad_cam(one, shown, label)
    np.testing.assert_allclose(cam.coarse, np.maximum(expected, 0), rtol=1e-3, atol=1e-6)


def test_the_map_is_stretched_over_the_image(network, member, images, tmp_path):
    cam = grad_cam(member(network()), images.images[:20], images.labels[:20])
    assert cam.coarse.any(axis=(1, 2)).sum() > 5
    for coarse, fine in zip(cam.coarse, cam.fine, strict=True):
        np.testing.assert_allclose(fine, cv2.resize(coarse, (8, 8)), atol=1e-5)
    titles, shown = ["image 0: x", "image 1: y"], images.images[:2]
    files = draw_grad_cam([shown] * 2, [cam, cam], ["a", "b"], titles, tmp_path)
    assert [file.name for file in files] == ["grad_cam.png", "grad_cam.svg"]
    # Each image alone and under each of two maps; what lies over each other is written as one.
    assert files[1].read_text().count("<image ") == 2 * 3
