"""Train, evaluate and take apart networks with channel attention.

Exit codes: 0, done; 2, the input cannot be used as it is; 3, the training diverged; 75, stopped
by a signal with the state saved, so that the same command resumes; 130, interrupted by Ctrl-C; 141,
nobody reads the output.
"""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

# All else is imported where Ctrl-C is looked after.
from senet_jax.command_line.interruption import is_interrupt, say_interrupted, watch_interrupts

if TYPE_CHECKING:
    import argparse


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments; None means those of the process, which this function then prepares:
            its streams, its handling of Ctrl-C and its memory.

    Returns:
        The exit code.
    """
    if argv is None:
        watch_interrupts()
    try:
        return _main(argv)
    except BaseException as error:
        if is_interrupt(error):
            return say_interrupted()
        raise


def _main(argv: Sequence[str] | None) -> int:
    import logging

    from senet_jax.command_line.output import open_streams, reader_may_leave
    from senet_jax.errors import ExitCode, UsageError
    from senet_jax.terminal import OneLine, escaped_output

    if argv is None:
        open_streams()
        _report_crashes()
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("senet-jax: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # Orbax and TFDS speak through absl of what is no concern of a user, and say again what they
    # raise.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if argv is None:
        from senet_jax.training.machine.allocator import keep_freed_memory

        keep_freed_memory()
    with escaped_output():
        try:
            with reader_may_leave():
                return _run(list(sys.argv[1:] if argv is None else argv))
        except UsageError as error:
            print(f"senet-jax: error: {error}", file=sys.stderr)
            return ExitCode.BAD_INPUT


def _run(arguments: list[str]) -> int:
    from senet_jax.commands.table import COMMANDS, CONFIG_COMMANDS
    from senet_jax.errors import choose

    if arguments and not arguments[0].startswith("-"):
        name = choose("command", arguments[0], {*CONFIG_COMMANDS, *COMMANDS})
        if name in CONFIG_COMMANDS:
            return CONFIG_COMMANDS[name].run(arguments[1:])
    options = _parse(arguments)
    code: int = options.run(options)
    return code


def _report_crashes() -> None:
    before = sys.excepthook

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        # After a write that fails, Orbax ends the event loop to which TensorStore reports others.
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            before(kind, error, trace)

    sys.excepthook = report


def _parse(arguments: list[str]) -> "argparse.Namespace":
    """Reads the arguments of the commands that argparse reads.

    Raises:
        UsageError: An argument that is unknown, missing or wrong.
    """
    import argparse
    import re

    from senet_jax.command_line.wrong_flags import unknown_argument
    from senet_jax.commands.table import COMMANDS, CONFIG_COMMANDS
    from senet_jax.errors import UsageError
    from senet_jax.text import printable

    class Parser(argparse.ArgumentParser):
        """Says in one sentence what is wrong, where argparse prints all options before."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{printable(message)}; see `{self.prog} --help`.")

    summary = (__doc__ or "").partition("\n")[0]
    parser = Parser(prog="senet-jax", description=summary)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # Only for the list of commands: what follows these does not come here.
    for name, config_command in CONFIG_COMMANDS.items():
        commands.add_parser(name, help=config_command.SUMMARY)
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run, parser=own)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = re.findall(r"--[\w-]+", options.parser.format_usage())
        raise unknown_argument(options.parser.prog, unknown[0], dict.fromkeys(flags))
    return options


if __name__ == "__main__":
    sys.exit(main())
