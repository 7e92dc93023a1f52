"""Image files that a person names: files, folders and patterns."""

from pathlib import Path

from senet_jax.data.decode import Unreadable
from senet_jax.data.sources import IMAGE_SUFFIXES
from senet_jax.errors import UsageError


class ImageFiles:
    """Encoded images in files, without labels.

    Args:
        arguments: Files; folders, of which all images are taken, those of their folders too; and
            shell patterns that the shell did not expand.

    Raises:
        UsageError: A folder has no images, or nothing matches a pattern.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._files: list[Path] = []
        for argument in arguments:
            path = Path(argument)
            if path.is_dir():
                found = [
                    file
                    for file in sorted(path.rglob("*"))
                    if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
                ]
                if not found:
                    raise UsageError(
                        f"{argument} has no images: those end in {', '.join(IMAGE_SUFFIXES)}."
                    )
            elif not path.exists() and any(sign in argument for sign in "*?["):
                root = Path(path.anchor)
                found = sorted(root.glob(str(path.relative_to(root))))
                if not found:
                    raise UsageError(f"no file matches {argument}.")
            else:
                found = [path]
            self._files += found

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        try:
            return self._files[index].read_bytes(), 0
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    def name(self, index: int) -> str:
        """The path as it was named."""
        return str(self._files[index])
