"""Train, evaluate and take apart networks with channel attention.

Exit codes: 0, done; 2, the input cannot be used as it is; 3, the training diverged; 75, stopped
by a signal with the state saved, so that the same command resumes; 130, interrupted by Ctrl-C; 141,
nobody reads the output.
"""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

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
    from senet_jax.commands.table import CONFIG_COMMANDS, SUMMARIES, command
    from senet_jax.errors import choose

    name, flags = "", arguments
    if arguments and not arguments[0].startswith("-"):
        name, flags = choose("command", arguments[0], SUMMARIES), arguments[1:]
    if name in CONFIG_COMMANDS:
        code: int = command(name).run(flags)
        return code
    options = _parse(name, flags)
    code = options.run(options)
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


def _parse(name: str, arguments: list[str]) -> "argparse.Namespace":
    """Reads the arguments of a command that argparse reads.

    Args:
        name: The command; "" reads those of `senet-jax` itself, which end the process.
        arguments: All that follows the name.

    Raises:
        UsageError: An argument that is unknown, missing or wrong.
        SystemExit: The arguments ask for help or for the version, which is printed.
    """
    from senet_jax.command_line.parsers import command_parser, main_parser
    from senet_jax.commands.table import SUMMARIES, command

    if not name:
        summary = (__doc__ or "").partition("\n")[0]
        return main_parser(summary, SUMMARIES).parse_args(arguments)
    module = command(name)
    parser = command_parser(name, SUMMARIES[name], module)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        import re

        # Imports the config, with the fields of all networks.
        from senet_jax.command_line.wrong_flags import unknown_argument

        flags = re.findall(r"--[\w-]+", parser.format_usage())
        raise unknown_argument(parser.prog, unknown[0], dict.fromkeys(flags))
    options.run, options.parser = module.run, parser
    return options


if __name__ == "__main__":
    sys.exit(main())
