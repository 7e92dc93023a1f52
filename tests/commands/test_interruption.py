"""Ctrl-C, sent to commands that are processes of their own."""

import signal
import subprocess
import sys
import time

import pytest

from senet_jax import cli
from senet_jax.command_line.interruption import is_interrupt
from senet_jax.commands import table
from senet_jax.errors import ExitCode
from senet_jax.training.distributed import hosts

LINE = "senet-jax: interrupted.\n"

COMMAND = """
import signal, sys, time
from senet_jax import cli
from senet_jax.commands import table
from senet_jax.command_line import interruption

interruption.DELIVERED_WITHIN_S = 0.3
interruption.watch_interrupts(ends_within_s={ends_within_s})

def run(options):
    {body}

table.command("models").run = run
sys.argv = ["senet-jax", "models"]
sys.exit(cli.main())
"""

IMPORT = """
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("ready", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
{program}
"""


def interrupted(program, count=1, between_s=0.0):
    """Exit code, errors and seconds of a program that is interrupted once it prints a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    process.stdout.readline()
    began = time.monotonic()
    for _ in range(count):
        process.send_signal(signal.SIGINT)
        time.sleep(between_s)
    _, err = process.communicate(timeout=30)
    return process.returncode, err, time.monotonic() - began


WAITS = "print('ready', flush=True); time.sleep(60)"
BLOCKED = f"signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}}); {WAITS}"
IN_C = BLOCKED.replace("SIGINT", "SIGINT, signal.SIGURG")
SWALLOWS = """print('ready', flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass"""
IN_DEL = f"""class Waits:
        def __del__(self):
            {WAITS.replace("60", "1")}
    Waits()
    time.sleep(60)"""
LEAVES_A_THREAD = f"""import threading
    threading.Thread(target=time.sleep, args=(60,)).start()
    {WAITS}"""
STARTS_NO_THREAD = f"""import threading
    def start(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")
    threading.Thread.start = start
    {SWALLOWS}"""


@pytest.mark.parametrize(
    "body",
    [WAITS, BLOCKED, IN_C, SWALLOWS, IN_DEL, LEAVES_A_THREAD, STARTS_NO_THREAD],
    ids=[
        *("in Python", "blocked", "in C", "swallowed", "in a destructor", "with a thread left"),
        "at the end of the interpreter",
    ],
)
def test_an_interrupt_is_one_line_and_code_130(body):
    code, err, seconds = interrupted(COMMAND.format(body=body, ends_within_s=0.3))
    assert (code, err) == (ExitCode.INTERRUPTED, LINE)
    assert seconds < 10


def test_a_second_interrupt_ends_at_once():
    patient = COMMAND.format(body=SWALLOWS, ends_within_s=None)
    assert interrupted(patient, 2, 0.2)[:2] == (ExitCode.INTERRUPTED, LINE)


@pytest.mark.parametrize(
    ("module", "program"),
    [
        ("senet_jax.command_line.output", "import senet_jax.cli\nsys.exit(senet_jax.cli.main())"),
        ("senet_jax.commands.table", "import senet_jax.cli\nsys.exit(senet_jax.cli.main())"),
        # As `python -m` begins.
        (
            "senet_jax.command_line.study",
            "sys.argv[0] = '-m'\nimport experiments\nsys.argv[0] = 'x'\nimport experiments.cifar",
        ),
    ],
)
def test_an_interrupt_during_imports_is_one_line(module, program):
    code, err, _ = interrupted(IMPORT.format(module=module, program=program))
    assert (code, err) == (ExitCode.INTERRUPTED, LINE)


@pytest.mark.parametrize("reraise", ["raise RuntimeError from error", "raise RuntimeError"])
def test_an_error_because_of_an_interrupt_is_an_interrupt(reraise):
    with pytest.raises(RuntimeError) as raised:
        exec(f"try:\n raise KeyboardInterrupt\nexcept BaseException as error:\n {reraise}", {})
    assert is_interrupt(raised.value)
    assert not is_interrupt(RuntimeError())


def test_an_interrupt_in_set_name_is_one_line():
    # As Flax's modules are made while they are imported.
    body = """
    class Field:
        def __set_name__(self, owner, name):
            print('ready', flush=True)
            time.sleep(20)
    class Module:
        field = Field()"""
    code, err, _ = interrupted(COMMAND.format(body=body, ends_within_s=5.0))
    assert (code, err) == (ExitCode.INTERRUPTED, LINE)


def test_a_process_that_ignores_interrupts_still_does():
    program = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{COMMAND}"
    body = "print('ready', flush=True); time.sleep(0.5); return 7"
    assert interrupted(program.format(body=body, ends_within_s=0.3))[:2] == (7, "")


@pytest.mark.parametrize("command", table.SUMMARIES)
def test_every_command_ends_with_130(command, capsys, monkeypatch):
    def run(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(table.command(command), "run", run)
    required = {"predict": ["x"], "checkpoints": ["x"], "average": ["x"], "report": ["x"]}
    required |= {"excitation": ["x"], "convert": ["x", "--out", "x"], "prepare": ["x"]}
    required["export"] = ["x", "--format", "npz"]
    assert cli.main([command, *required.get(command, [])]) == ExitCode.INTERRUPTED
    assert capsys.readouterr() == ("", LINE)


def test_an_interrupted_host_tells_the_others(monkeypatch):
    said = []

    class Rendezvous:
        def leave(self, *reason):
            said.append(reason)

    def exit_now(*end):
        said.append(end)
        raise SystemExit

    monkeypatch.setattr(hosts, "exit_now", exit_now)
    with pytest.raises(SystemExit):
        hosts._fail(Rendezvous(), KeyboardInterrupt())
    assert said == [("it was interrupted.", 130), ("interrupted.", 130)]
