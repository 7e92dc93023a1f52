"""Networks of semantic segmentation, against the outputs of torchvision's and the authors'."""

import importlib
import os

import jax
import numpy as np
import pytest
from dense import checksum, dense_goldens, photograph
from goldens import draw, goldens

from senet_jax import UsageError, create_model
from senet_jax.interchange import MisfitError, from_torch, to_torch
from senet_jax.interchange.naming import namings

FEW = {"blocks": (1, 1, 1, 1), "widths": (4, 4, 4, 8), "stem_width": 4, "num_classes": 5}


def shapes_of(name, fields):
    """Shapes of the state dict of a network in the names that it is written in."""
    model = create_model(name, **fields)
    shapes = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))
    return {key: array.shape for key, array in to_torch(name, zeros, **fields).items()}


AUTHORS = {
    "fcn": (("classifier.", "head.conv5."),),
    "deeplabv3": (
        ("classifier.0.convs.4.", "head.aspp.b4.gap."),
        ("classifier.0.convs.", "head.aspp.b"),
        ("classifier.0.project.", "head.aspp.project."),
        ("classifier.1.", "head.block.0."),
        ("classifier.2.", "head.block.1."),
        ("classifier.4.", "head.block.4."),
    ),
    "both": (("aux_classifier.", "auxlayer.conv5."), ("backbone.", "pretrained.")),
}
"""Starts of names in torchvision, and what they are in PyTorch-Encoding."""


def by_the_authors(name, key):
    """The authors' name of an array, from torchvision's."""
    for old, new in (*AUTHORS["both"], *AUTHORS.get(name.partition("_")[0], ())):
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def shapes_in_torch(golden):
    """Shapes of the state dict of a golden by the names that its source has."""
    shapes = shapes_of(golden.name, golden.fields)
    if "resnest" not in golden.name:
        return shapes
    return {by_the_authors(golden.name, key): shape for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(golden, id=str(golden), marks=[pytest.mark.slow] if golden.whole else [])
        for golden in dense_goldens()
    ],
)
def test_logits_are_those_of_pytorch(golden):
    shapes = shapes_in_torch(golden)
    assert (len(shapes), checksum(shapes)) == (golden.entries, golden.sha256)
    state_dict = {key: draw(key, shape) for key, shape in shapes.items()}
    variables = from_torch(golden.name, state_dict, **golden.fields)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == golden.params
    model = create_model(golden.name, **golden.fields)
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    for output in golden.outputs:
        found = apply(photograph(*output["size"]))
        for key in ("out", "aux"):
            logits, expected = np.asarray(found[key][0], np.float64), output[key]
            assert logits.shape == (*output["size"], 21)
            difference = logits[output["rows"], output["columns"]] - np.array(expected["logits"])
            assert np.abs(difference).max() < 1e-4 * expected["std"]
            assert abs(logits.mean() - expected["mean"]) < 1e-4 * expected["std"]
            assert logits.std() == pytest.approx(expected["std"], rel=1e-4)


@pytest.mark.parametrize(
    "golden", [pytest.param(golden, id=str(golden)) for golden in dense_goldens() if golden.whole]
)
def test_names_and_shapes_are_those_of_pytorch(golden):
    assert checksum(shapes_in_torch(golden)) == golden.sha256


def drawn(name, **fields):
    """Fields of a narrow network, and its state dict."""
    fields = FEW | fields
    return fields, {key: draw(key, shape) for key, shape in shapes_of(name, fields).items()}


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("head", ["fcn", "deeplabv3", "deeplabv3plus", "pspnet"])
@pytest.mark.parametrize("backbone", ["resnet50", "legacy_seresnet50"])
def test_weights_come_back_exactly(head, backbone):
    fields, state_dict = drawn(f"{head}_{backbone}")
    variables = from_torch(f"{head}_{backbone}", state_dict, **fields)
    assert_same(to_torch(f"{head}_{backbone}", variables, **fields), state_dict)


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_names_of_both_give_the_same_variables(name):
    fields, state_dict = drawn(name)
    authors = {f"module.{by_the_authors(name, key)}": a for key, a in state_dict.items()}
    assert not authors.keys() & state_dict.keys()
    assert_same(from_torch(name, authors, **fields), from_torch(name, state_dict, **fields))


def test_two_rates_number_the_branch_of_the_mean():
    _, state_dict = drawn("deeplabv3_resnet50", rates=(2, 4), head_width=6)
    assert "classifier.0.convs.2.1.weight" in state_dict
    assert state_dict["classifier.0.convs.3.1.weight"].shape == (6, 32, 1, 1)


def test_weights_with_an_auxiliary_head_fit_without_it():
    fields, state_dict = drawn("fcn_resnet50")
    found = from_torch("fcn_resnet50", state_dict, aux=False, **fields)
    assert found["params"].keys() == {"backbone", "head"}
    bare = {key: a for key, a in state_dict.items() if not key.startswith("aux_classifier")}
    assert_same(to_torch("fcn_resnet50", found, aux=False, **fields), bare)
    with pytest.raises(MisfitError, match=r"missing \(7\): aux_classifier\.[01]"):
        from_torch("fcn_resnet50", bare, **fields)


def test_weights_of_another_head_are_refused():
    fields, state_dict = drawn("fcn_resnet50")
    with pytest.raises(MisfitError, match="the weights do not fit deeplabv3_resnet50") as caught:
        from_torch("deeplabv3_resnet50", state_dict, **fields)
    assert "missing" in str(caught.value)
    assert "left over" in str(caught.value)


def test_other_classes_start_fresh_classifiers():
    fields, state_dict = drawn("fcn_resnet50")
    fields["num_classes"] = 7
    with pytest.raises(MisfitError) as caught:
        from_torch("fcn_resnet50", state_dict, **fields)
    assert caught.value.head_classes == (5,)
    assert "num_classes=5 keeps the one given" in str(caught.value)
    found = from_torch("fcn_resnet50", state_dict, drop_head=True, **fields)["params"]
    for head, own in (("head", "classifier"), ("aux_head", "aux_classifier")):
        assert found[head]["classifier"]["kernel"].shape[-1] == 7
        kept = state_dict[f"{own}.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(found[head]["layer"]["conv"]["kernel"], kept)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "resnest50d", "vgg11"])
def test_weights_of_a_classifier_go_into_the_backbone(backbone):
    fields = {"num_classes": 5, "widths": (4, 4, 4, 8, 8)} if backbone == "vgg11" else dict(FEW)
    if backbone == "resnest50d":
        fields["stem_width"] = (4, 4, 8)
    of_classifier = {**fields, "num_classes": 9}
    if backbone == "vgg11":
        of_classifier["fc_width"] = 8
    weights = {key: draw(key, shape) for key, shape in shapes_of(backbone, of_classifier).items()}
    expected = from_torch(backbone, weights, **of_classifier)
    name = f"fcn_{backbone}"
    found = from_torch(name, weights, drop_head=True, **fields)
    for kind in ("params", "batch_stats"):
        for module, leaves in found[kind].get("backbone", {}).items():
            assert_same(leaves, expected[kind][module])
    assert found["params"]["head"]["classifier"]["kernel"].shape[-1] == 5
    assert np.any(found["params"]["head"]["layer"]["conv"]["kernel"] != 0)
    create_model(name, **fields).apply(found, photograph(64, 64), train=False)
    with pytest.raises(MisfitError, match="have none of its heads"):
        from_torch(name, weights, **fields)


def test_weights_of_another_backbone_are_refused():
    weights = goldens()["resnet18"].state_dict()
    with pytest.raises(MisfitError, match="do not fit resnet50:"):
        from_torch("fcn_resnet50", weights, drop_head=True)


def test_a_name_without_its_head_has_no_naming():
    model = create_model("fcn_resnet50")
    first = namings("fcn_resnet50", model)[0]
    assert first("backbone/stage2/block1/shortcut/conv") == "backbone.layer1.0.downsample.0"
    with pytest.raises(UsageError, match="did you mean"):
        from_torch("fcn_resnet5O", {})


@pytest.fixture(scope="module")
def torchvision():
    """torchvision, whose wheel may be compiled for another build of PyTorch."""
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    torch = importlib.import_module("torch")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        # Without its C++ operations the networks of segmentation run all the same.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        return importlib.import_module("torchvision")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(97, 129), (64, 33)])
@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"]
)
def test_logits_are_those_of_torchvision(torchvision, name, size):
    torch = importlib.import_module("torch")
    build = getattr(torchvision.models.segmentation, name)
    network = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    drawn = {
        key: torch.from_numpy(draw(key, tuple(tensor.shape)))
        for key, tensor in network.state_dict().items()
    }
    network.load_state_dict(drawn)
    x = photograph(*size)
    with torch.no_grad():
        expected = network(torch.from_numpy(x).permute(0, 3, 1, 2))
    variables = from_torch(name, network.state_dict())
    model = create_model(name)
    found = jax.jit(lambda x: model.apply(variables, x, train=False))(x)
    for key in ("out", "aux"):
        logits = expected[key].permute(0, 2, 3, 1).numpy()
        assert np.abs(found[key] - logits).max() < 1e-4 * logits.std()
