import sys
import types

import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.interchange import hub, load_weights, save_arrays

NAME = "hf-hub:timm/seresnet50.ra2_in1k"
BRING = (
    r"download https://huggingface\.co/timm/seresnet50\.ra2_in1k/resolve/main/model\.safetensors"
)


class HfHubHTTPError(Exception):
    """In the versions on httpx no OSError."""


@pytest.fixture
def package(monkeypatch):
    """A ``huggingface_hub`` that has what a test gives it and notes what it is asked for."""

    def install(answer):
        def hf_hub_download(repo, file, *, revision):
            package.asked = (repo, file, revision)
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        package = types.ModuleType("huggingface_hub")
        package.hf_hub_download = hf_hub_download
        package.errors = types.SimpleNamespace(HfHubHTTPError=HfHubHTTPError)
        monkeypatch.setitem(sys.modules, "huggingface_hub", package)
        return package

    return install


@pytest.mark.parametrize(("tail", "revision"), [("", None), ("@v1.0", "v1.0")])
def test_the_file_is_fetched(package, tmp_path, tail, revision):
    found = package(tmp_path / "model.safetensors")
    assert hub.fetch(NAME + tail) == tmp_path / "model.safetensors"
    assert found.asked == ("timm/seresnet50.ra2_in1k", "model.safetensors", revision)


def test_weights_by_the_name_of_the_hub(package, tmp_path):
    save_arrays(tmp_path / "model.safetensors", {"fc.bias": np.zeros(3, np.float32)})
    package(tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=f"^{NAME}: the weights do not fit cifar_resnet8"):
        load_weights(NAME, "cifar_resnet8")


@pytest.mark.parametrize(
    "error", [ConnectionError("offline\nand more"), HfHubHTTPError("offline"), OSError("offline")]
)
def test_without_the_network_the_file_to_bring_is_named(package, error):
    package(error)
    with pytest.raises(UsageError, match=rf"\(offline\): {BRING}"):
        hub.fetch(NAME)


def test_without_the_package_the_file_to_bring_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        UsageError, match=rf"needs huggingface_hub: pip install .*'\.\[hub\]'.*, or {BRING}"
    ):
        hub.fetch(NAME)


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:timm", "hf-hub:a/b/c", "hf-hub:timm/a@"])
def test_a_name_of_another_form(name):
    with pytest.raises(UsageError, match="hf-hub:owner/repository"):
        hub.fetch(name)
