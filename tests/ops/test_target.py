import jax
import pytest

from senet_jax import UsageError
from senet_jax.ops.target import compiled_for, for_gpu, target


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_the_backend_decides_unless_a_target_is_named(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert (target(), for_gpu()) == (backend, backend == "gpu")
    with compiled_for("gpu"):
        assert (target(), for_gpu()) == ("gpu", True)
        with compiled_for("tpu"):
            assert (target(), for_gpu()) == ("tpu", False)
        assert for_gpu()
    assert target() == backend


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_target_is_refused():
    with pytest.raises(UsageError, match="gpu"), compiled_for("gpus"):
        pass
