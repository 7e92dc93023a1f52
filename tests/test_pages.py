"""The README files: links, commands and code hold, and tables are what scripts print."""

import ast
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from experiments.benchmarks.race_tables import tables
from senet_jax import cli
from senet_jax.command_line.invocation import Invocation
from senet_jax.command_line.wrong_flags import flags_of
from senet_jax.commands.table import CONFIG_COMMANDS, SUMMARIES
from senet_jax.config import TrainConfig
from senet_jax.data.datasets import DATASETS
from senet_jax.training.presets import PRESETS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / ".ci/docs/conf.py"
FOLDERS = (".", "senet_jax", "experiments", "notebooks")
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for folder in FOLDERS
    for page in sorted((ROOT / folder).glob("README.md" if folder == "." else "**/README.md"))
}
ATTENTION = PAGES["senet_jax/attention/README.md"]
FLAGS = {*flags_of(Invocation(TrainConfig()))}


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands(text):
    """The commands of senet-jax that a page quotes, in blocks and within sentences."""
    lines = re.findall(r"^    (senet-jax .*)$", text, re.M)
    return [*lines, *(" ".join(each.split()) for each in re.findall(r"`(senet-jax [^`]+)`", text))]


def wrong(command):
    """The word of a command that the command line does not know, or None."""
    _, name, *words = [each for each in shlex.split(command, comments=True) if each != "..."]
    if name not in SUMMARIES:
        return None if name == "COMMAND" else name
    if name not in CONFIG_COMMANDS:
        try:
            cli._parse(name, words)
        except SystemExit as stopped:
            return stopped.code or None  # --help ends with 0.
        return None
    preset = [] if not words or words[0].startswith("-") else words[:1]
    given = [each.partition("=")[0] for each in words if each.startswith("--")]
    known = {*PRESETS, "PRESET"} | ({*DATASETS} if name == "show-data" else set())
    unknown = [each for each in preset if each not in known]
    return next(iter([*unknown, *({*given} - FLAGS - {"--help", "--out"})]), None)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    missing = []
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        file = file / "README.md" if file.is_dir() and anchor else file
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M) if anchor else []
        if not file.exists() or (anchor and anchor not in map(slug, headings)):
            missing.append(target)
    assert missing == []


def test_a_linked_page_is_on_the_site():
    listed = re.search(r"^include_patterns = (\[.*?\])", DOCS.read_text(), re.M | re.S)[1]
    patterns = [each.replace("**/", "*") for each in ast.literal_eval(listed)]
    linked = {
        os.path.normpath(Path(page).parent / target)
        for page, text in PAGES.items()
        for target in re.findall(r"\]\((?!https?:)([^)#]+\.md)", text)
    }
    assert {name for name in linked if not any(fnmatch(name, each) for each in patterns)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_known(page):
    found = {command: wrong(command) for command in commands(PAGES[page])}
    assert {command: word for command, word in found.items() if word} == {}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("senet-jax trian demo", "trian"),
        ("senet-jax train dem", "dem"),
        ("senet-jax train demo --epoch 3", "--epoch"),
    ],
)
def test_an_unknown_word_of_a_command_is_found(command, word):
    assert wrong(command) == word


@pytest.mark.parametrize("page", PAGES)
def test_modules_of_a_page_exist(page):
    names = re.findall(r"python -m ((?:experiments|tests)\.[\w.]*\w)", PAGES[page])
    names = [name for name in names if name != "experiments.benchmarks"]
    assert [name for name in names if importlib.util.find_spec(name) is None] == []


def test_every_preset_is_on_the_page_of_training():
    text = PAGES["senet_jax/training/README.md"]
    assert [name for name in PRESETS if f"`{name}`" not in text] == []


def test_every_command_is_on_a_page():
    quoted = {shlex.split(each, comments=True)[1] for t in PAGES.values() for each in commands(t)}
    assert {*SUMMARIES} <= quoted


def test_every_study_and_benchmark_is_on_its_page():
    studies = {file.stem for file in (ROOT / "experiments").glob("*.py")} - {"__init__"}
    assert [name for name in studies if name not in PAGES["experiments/README.md"]] == []
    page = PAGES["experiments/benchmarks/README.md"]
    benchmarks = {file.name for file in (ROOT / "experiments/benchmarks").glob("*.py")}
    assert benchmarks - {*re.findall(r"\w+\.py", page)} <= {"faults.py"}


def test_the_races_are_what_the_results_say():
    assert "\n\n".join(tables()) in PAGES["experiments/benchmarks/README.md"]


def test_ci_runs_commands_of_the_pages():
    listed = runpy.run_path(str(ROOT / ".ci" / "readme_commands"))["COMMANDS"]
    texts = [text for _, text in listed if text.startswith("senet-jax")]
    assert {text: word for text in texts if (word := wrong(text))} == {}


def python_of(text):
    """The Python of a page that stands for itself."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    return [block for block in blocks if not block.startswith(("# senet_jax/", "# tests/"))]


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder), "CHECK_ANNOTATIONS": "1"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if python_of(text)])
def test_python_of_a_page_runs(page):
    run(ROOT, "-c", "__name__ = 'page'\n" + "\n".join(python_of(PAGES[page])))


def changed(source, hunk):
    """A file after a change as a diff shows it, without numbers of lines."""
    lines = hunk.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    assert source.count(before) == 1, f"a diff on the page is not of the tree any more:\n{before}"
    return source.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))


@pytest.mark.slow
def test_an_attention_is_added_as_its_page_says(tmp_path):
    for name in ("senet_jax", "tests"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    new = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", ATTENTION, re.M | re.S)
    assert len(new) == 2
    for name, text in new:
        (tmp_path / name).write_text(text)
    edits = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```", ATTENTION, re.M | re.S)
    assert len(edits) == 2
    for name, text in edits:
        source = (tmp_path / name).read_text()
        for hunk in text.split("@@\n"):
            source = changed(source, hunk)
        (tmp_path / name).write_text(source)
    tests = ["tests/attention/test_coordinate.py", "tests/fields/test_union.py"]
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    flags = ["--model.attention.kind", "coord", "--epochs", "1", "--optimizer.warmup-epochs", "0"]
    run(tmp_path, "-m", "senet_jax.cli", "train", "demo", *flags, "--run-dir", tmp_path / "coord")
    run(tmp_path, "-m", "senet_jax.cli", "excitation", tmp_path / "coord")
