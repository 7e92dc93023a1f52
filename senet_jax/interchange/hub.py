"""Weights from the Hugging Face hub, by name."""

import os
import re
from pathlib import Path

from senet_jax.errors import UsageError, installs

PREFIX = "hf-hub:"
_FILE = "model.safetensors"
_NAME = re.compile(r"hf-hub:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def local(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The file of a source: the path itself, or what ``fetch`` downloads of a name of the hub.

    Raises:
        UsageError: As ``fetch``.
    """
    return fetch(str(source)) if str(source).startswith(PREFIX) else source


def fetch(name: str) -> Path:
    """Downloads the weights of a repository of the hub, or finds them in its cache.

    Args:
        name: "hf-hub:timm/seresnet50.ra2_in1k", with "@revision" behind it or not.

    Returns:
        Path of its ``model.safetensors``.

    Raises:
        UsageError: A name of another form, no ``huggingface_hub``, or no such file to be had; the
            message says which file to bring instead.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"{name!r} is no name of the hub: write {PREFIX}owner/repository.")
    repo, revision = match["repo"], match["revision"]
    address = f"https://huggingface.co/{repo}/resolve/{revision or 'main'}/{_FILE}"
    instead = f"download {address} and give the path of the file"
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(
            f"{name} needs huggingface_hub: {installs('hub')}, or {instead}."
        ) from error
    try:
        return Path(huggingface_hub.hf_hub_download(repo, _FILE, revision=revision))
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(f"{name} is not to be had ({reason}): {instead}.") from error
