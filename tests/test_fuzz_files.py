"""Damages every file that a command reads, at random: one sentence or none, and nothing is lost.

Each example damages one file of a folder of runs, weights, labels and images and runs a command
that reads it. ``FUZZ_EXAMPLES=500 pytest tests/test_fuzz_files.py`` tries so many for each file, at
random; without it the examples are few and always the same.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from PIL import Image

from senet_jax import cli
from senet_jax.models import zoo
from tests.tiny_runs import TINY

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))

LIMIT_S = 120
"""Seconds after which a command hangs."""

LOST = {".lock"}
"""Names of files that a command may change although it refuses."""


class Hang(BaseException):
    """A command took too long; nothing that catches exceptions catches it."""


FLAGS = (
    *("--model.name", "tiny", "--mesh.data", "1", "--epochs", "2", "--data.batch-size", "512"),
    *("--checkpoint.keep-last", "2"),
)

OF_TINY = ("--model", "tiny", "--channels", "1")

SHOWN = (
    *("--model.name", "tiny", "--mesh.data", "1", "--data.batch-size", "2", "--images", "2"),
    *("--out", "shown.png"),
)

COMMANDS = {
    "report": ("report", "study", "--out", "out"),
    "evaluate": ("evaluate", "study/se/seed0", "--devices", "1"),
    "evaluate labels": ("evaluate", "study/se/seed0", "--devices", "1", "--labels", "labels.json"),
    "predict png": ("predict", "image.png", "--run", "study/se/seed0", "--devices", "1"),
    "predict jpeg": ("predict", "image.jpg", "--run", "study/se/seed0", "--devices", "1"),
    "checkpoints": ("checkpoints", "study/se/seed0", "--verify"),
    "average": ("average", "study/se/seed0", "--last", "2", "--out", "out.npz"),
    "convert": ("convert", "study/se/seed0", "--out", "out.npz"),
    "convert npz": ("convert", "weights.npz", *OF_TINY, "--out", "out.safetensors"),
    "convert safetensors": ("convert", "weights.safetensors", *OF_TINY, "--out", "out.npz"),
    "export": ("export", "study/se/seed0", "--format", "npz", "--out", "out.npz"),
    "excitation": (
        *("excitation", "study/se/seed0", "--limit", "8", "--devices", "1", "--out", "out"),
    ),
    "show folder": (
        *("show-data", "folder", "--data.dir", "folder", "--data.image-size", "8"),
        *SHOWN,
    ),
    "show tfds": ("show-data", "cifar10", "--data.dir", "tfds", *SHOWN),
    "train": ("train", "demo", "--run-dir", "resumed", *FLAGS),
    "train from": ("train", "demo", "--run-dir", "new", "--init-weights", "weights.npz", *FLAGS),
}
"""The commands that read the files, in the folder of all of them."""

RUN = ("report", "evaluate", "predict png", "checkpoints", "average", "convert", "export")

READ = {
    "study/se/seed0/config.json": (*RUN, "excitation"),
    "study/se/seed0/dataset.json": (*RUN, "excitation"),
    "study/se/seed0/metrics.jsonl": ("report",),
    "study/se/seed0/sessions.jsonl": ("report",),
    "study/study.json": ("report",),
    "study/se/seed0/checkpoints/*/*": ("checkpoints", "evaluate", "average"),
    "study/se/seed0/checkpoints/*/meta/metadata": ("checkpoints", "evaluate", "average"),
    "study/se/seed0/checkpoints/*/state/*": ("checkpoints", "evaluate", "average"),
    "labels.json": ("evaluate labels",),
    "weights.npz": ("convert npz", "train from"),
    "weights.safetensors": ("convert safetensors",),
    "image.png": ("predict png",),
    "image.jpg": ("predict jpeg",),
    "folder/*/*/*": ("show folder",),
    "tfds/cifar10/3.0.2/*.json": ("show tfds",),
    "tfds/cifar10/3.0.2/*.txt": ("show tfds",),
    "resumed/config.json": ("train",),
    "resumed/dataset.json": ("train",),
    "resumed/metrics.jsonl": ("train",),
    "resumed/sessions.jsonl": ("train",),
    "resumed/checkpoints/*/meta/metadata": ("train",),
}
"""The files, as patterns, and the commands that read them."""

MOST, FEW = 15, {"train": 8, "train from": 8, "excitation": 8, "report": 10}
"""Examples for each file, and those of commands that train or draw."""


with tfds.core.registered.skip_registration():

    class Cifar10(tfds.core.GeneratorBasedBuilder):
        """CIFAR-10 in miniature, written by TFDS; given PNG bytes, it needs no TensorFlow."""

        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(names=[*"0123456789"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(8), "test": self._generate_examples(4)}

        def _generate_examples(self, count):
            for index in range(count):
                yield index, {"id": str(index), "image": BytesIO(picture("png", 32)), "label": 1}


def picture(kind, side):
    data = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The current folder, and another with what it holds at first."""
    root = tmp_path_factory.mktemp("fuzz")
    world, pristine = root / "world", root / "pristine"
    world.mkdir()
    # It would be taken from the current folder, which is another one below.
    cache = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(Path(cache).absolute()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.ZOO, "tiny", TINY)
        patch.chdir(world)
        _fill(world)
        shutil.copytree(world, pristine)
        yield world, pristine
    jax.config.update("jax_compilation_cache_dir", cache)


def _fill(world):
    run, resumed = world / "study/se/seed0", world / "resumed"
    for folder in (run, resumed):
        train = ("train", "demo", "--run-dir", str(folder.relative_to(world)), *FLAGS)
        assert quietly(*train)[0] == 0
    # As if it had been killed after its first epoch.
    first, last = sorted((resumed / "checkpoints").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(last)
    for name in ("metrics.jsonl", "sessions.jsonl"):
        line = (resumed / name).read_text().splitlines(keepends=True)[0]
        (resumed / name).write_text(line.replace(f'"step": {last.name}', f'"step": {first.name}'))
    other = world / "study/plain/seed0"
    other.mkdir(parents=True)
    for name in ("config.json", "dataset.json", "metrics.jsonl", "sessions.jsonl"):
        text = (run / name).read_text()
        (other / name).write_text(text.replace('"label_smoothing": 0.0', '"label_smoothing": 0.1'))
    (world / "study/study.json").write_text('{"baseline": "plain"}\n')
    for kind in ("npz", "safetensors"):
        converted = quietly("convert", "study/se/seed0", "--out", f"weights.{kind}")
        assert converted[0] == 0
    (world / "labels.json").write_text(json.dumps([index % 10 for index in range(360)]))
    (world / "image.png").write_bytes(picture("png", 8))
    (world / "image.jpg").write_bytes(picture("jpeg", 8))
    for split in ("train", "val"):
        for name in ("a", "b"):
            (world / "folder" / split / name).mkdir(parents=True)
            for index in range(2):
                file = world / "folder" / split / name / f"{index}.png"
                file.write_bytes(picture("png", 8))
    Cifar10(data_dir=world / "tfds", file_format="array_record").download_and_prepare()


def quietly(*arguments):
    """The exit code of a command and what it says on standard error.

    Raises:
        Hang: It takes too long.
    """

    def hang(number, frame):
        raise Hang(" ".join(arguments))

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT_S)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            try:
                code = cli.main(list(arguments))
            except SystemExit as stopped:
                code = stopped.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, said.getvalue()


def files_of(folder, but):
    """The contents of a folder, but for the files that may change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name in LOST or (but and but in path.parts):
            continue
        # A FIFO would be waited for.
        regular = path.is_file() and not path.is_symlink()
        found[str(path)] = path.read_bytes() if regular else path.lstat().st_mode
    return found


HOSTILE = (
    *(None, True, -1, 0, 10**18, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 5000),
    *(
        "\x1b[31m$\\broken$|",
        "\udce9",
        "\ud800",
        "a\0b",
        "../../x",
        [],
        {},
        [[]],
        {"a": None},
        [None],
        [-1.5],
    ),
)
"""Values for any field of JSON."""


@dataclasses.dataclass(frozen=True)
class Damage:
    """A damage of a file."""

    name: str
    do: Callable[[Path], None] = dataclasses.field(repr=False)


def replaced(name, data):
    return Damage(f"{name}: {data[:200]!r}", lambda file: file.write_bytes(data))


def fifo(file):
    file.unlink()
    os.mkfifo(file)


def folder(file):
    file.unlink()
    file.mkdir()


def dangling(file):
    file.unlink()
    file.symlink_to("nowhere")


def loop(file):
    file.unlink()
    file.symlink_to(file.name)


WHOLE = [
    replaced("empty", b""),
    replaced("null", b"null"),
    replaced("null line", b"null\n"),
    replaced("list", b"[]\n"),
    replaced("object", b"{}\n"),
    replaced("number", b"7\n"),
    replaced("text", b'"x"\n'),
    replaced("deep", b"[" * 100_000 + b"\n"),
    replaced("deep objects", b'{"a":' * 100_000),
    replaced("zeros", bytes(5000)),
    replaced("digits", b"9" * 5000 + b"\n"),
    Damage("FIFO", fifo),
    Damage("folder", folder),
    Damage("dangling link", dangling),
    Damage("link to itself", loop),
    Damage("missing", Path.unlink),
]


@st.composite
def damages(draw, data):
    """Damages of a file with this content."""
    text = _json_of(data)
    kinds = ["whole", "truncated", "flipped", "inserted", "prefixed", "twice"]
    kind = draw(st.sampled_from([*kinds, *["field"] * 6] if text else kinds))
    if kind == "whole":
        return draw(st.sampled_from(WHOLE))
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    if kind == "truncated":
        return replaced("truncated", data[:place])
    if kind == "flipped":
        bits = draw(st.integers(1, 255))
        flipped = data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :] if data else b"\1"
        return Damage(f"byte {place} xor {bits}", lambda file: file.write_bytes(flipped))
    if kind == "inserted":
        more = draw(st.sampled_from([b"\xff", b"\x00", b"\n", b"{", b"\x1b", b"\xed\xb3\xa9"]))
        inserted = data[:place] + more + data[place:]
        return Damage(f"{more!r} at {place}", lambda file: file.write_bytes(inserted))
    if kind == "prefixed":
        mark = draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04"]))
        return replaced("prefixed", mark + data)
    if kind == "twice":
        return replaced("twice", data + data)
    lines = list(text)
    number = draw(st.integers(0, len(lines) - 1))
    name, lines[number] = draw(_fields(lines[number]))
    # A file with one object keeps its form; each line of several ends.
    joined = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return Damage(f"line {number + 1}: {name}", lambda file: file.write_bytes(joined))


def _json_of(data):
    """The lines of JSON, or the one value; None for other files."""
    try:
        return [json.loads(data)]
    except ValueError:
        try:
            return [json.loads(line) for line in data.decode().splitlines()]
        except ValueError:
            return None


@st.composite
def _fields(draw, value):
    """A value in which one field, however deep, is another or gone; and a word for it."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        what = draw(st.sampled_from(["inside", "inside", "inside", "gone", "more"]))
        changed = value.copy()
        if what == "gone":
            del changed[key]
            return f"{key} gone", changed
        if what == "more" and isinstance(value, dict):
            return "a field more", {**value, "surplus": 1}
        name, changed[key] = draw(_fields(value[key]))
        return f"{key} / {name}", changed
    other = draw(st.sampled_from(HOSTILE))
    return f"{other!r:.60}", other


def examples(command):
    return EXAMPLES or FEW.get(command, MOST)


CASES = [(pattern, command) for pattern, commands in READ.items() for command in commands]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pattern", "command"), CASES)
def test_a_damaged_file_ends_in_one_sentence(world, pattern, command):
    folder, pristine = world
    files = [path for path in sorted(pristine.glob(pattern)) if path.is_file()]
    assert files

    @settings(
        max_examples=examples(command),
        deadline=None,
        database=None,
        derandomize=not EXAMPLES,
        # Smaller examples of a failure are not looked for: each costs a command.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def attack(data):
        file = data.draw(st.sampled_from(files))
        damage = data.draw(damages(file.read_bytes()))
        name = file.relative_to(pristine)
        note(f"cd {folder}; senet-jax {' '.join(COMMANDS[command])}\n{name}: {damage.name}")
        restore(folder, pristine)
        damage.do(folder / name)
        # A damaged checkpoint is set aside, and the next one is tried.
        but = "resumed" if "resumed/checkpoints" in pattern else None
        before = files_of(folder, but)
        code, said = quietly(*COMMANDS[command])
        assert code in (0, 2, 3), said
        assert "Traceback" not in said
        if code == 2:
            # These go on with the other checkpoints and images.
            assert command.startswith(("checkpoints", "predict")) or said.count("error: ") == 1
            assert files_of(folder, but) == before

    attack()


def restore(folder, pristine):
    """Gives a folder its first content; it is the current one, and stays."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(pristine, folder, symlinks=True, dirs_exist_ok=True)


@pytest.mark.slow
def test_every_command_does_its_work_on_whole_files(world):
    folder, pristine = world
    for command, arguments in COMMANDS.items():
        restore(folder, pristine)
        code, said = quietly(*arguments)
        assert (command, code) == (command, 0), said
