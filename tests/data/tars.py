"""ImageNet's tars with a few images of a few bytes."""

import tarfile
from io import BytesIO

SYNSETS = ("n01440764", "n01443537", "n01484850")


def pack(members):
    """A tar, as bytes, of (name, bytes); a name that ends in "/" is a folder's."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    return packed.getvalue()


def train_members(counts=(3, 1, 2), image=b"image" * 200):
    """The members of the training tar: a tar for each synset."""
    return [
        (f"{synset}.tar", pack([(f"{synset}_{number}.JPEG", image) for number in range(count)]))
        for synset, count in zip(SYNSETS, counts, strict=True)
    ]


def validation_members(count=5, image=b"image" * 200):
    """The members of the validation tar, not in their order."""
    numbers = [*range(2, count + 1), 1]
    return [(f"ILSVRC2012_val_{number:08d}.JPEG", image) for number in numbers]


def write_tars(folder, train=None, validation=None, test=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ILSVRC2012_img_train.tar").write_bytes(pack(train or train_members()))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(pack(validation or validation_members()))
    if test:
        (folder / "ILSVRC2012_img_test.tar").write_bytes(pack(test))
    return folder
