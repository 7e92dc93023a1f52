"""Formats of image files: which ones are decoded, and the suffixes by which files are found.

Pillow decides by the content of a file, not by its suffix, so that an explicit list is what keeps
Ghostscript from being started for an EPS file that is called x.jpg. The list has the formats of
pixels that begin with a signature; formats of drawings (EPS, PostScript, WMF, EMF), of textures,
documents and measurements are no images here.
"""

from PIL import Image

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
    "ICO": (".ico",),
    "QOI": (".qoi",),
}
"""Pillow's names of the formats, and the suffixes of their files."""

IMAGE_SUFFIXES = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
"""Suffixes of the files that are taken from a folder, in lower case."""

# Pillow knows AVIF from version 11.3 on, and a wheel may lack a library.
Image.init()
FORMATS = tuple(name for name in _SUFFIXES if name in Image.OPEN)
"""The formats that this Pillow decodes: the argument ``formats`` of every ``Image.open``."""
