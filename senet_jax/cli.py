"""Train, evaluate and take apart networks with channel attention.

Exit codes: 0, done; 2, the input cannot be used as it is; 3, the training diverged; 75, stopped
by a signal with the state saved, so that the same command resumes; 141, nobody reads the output.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from types import TracebackType

from senet_jax.commands import (
    average,
    checkpoints,
    convert,
    evaluate,
    excitation,
    export,
    models,
    predict,
    prepare,
    report,
    show_data,
    train,
)
from senet_jax.commands.output import reader_may_leave
from senet_jax.errors import BAD_INPUT, UsageError
from senet_jax.training.allocator import keep_freed_memory

COMMANDS = {
    "evaluate": evaluate,
    "predict": predict,
    "checkpoints": checkpoints,
    "average": average,
    "report": report,
    "excitation": excitation,
    "convert": convert,
    "export": export,
    "models": models,
    "prepare": prepare,
}
"""The commands that argparse reads."""

CONFIG_COMMANDS = {"train": train, "show-data": show_data}
"""The commands that tyro reads: a flag for every field of a config."""

EXAMPLES = {name: module.EXAMPLES for name, module in {**CONFIG_COMMANDS, **COMMANDS}.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments; None means those of the process.

    Returns:
        The exit code.
    """
    logging.basicConfig(format="senet-jax: %(message)s", level=logging.WARNING)
    # Orbax and TFDS speak through absl of what is no concern of a user, and say again what they
    # raise.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.excepthook = _report_crash
    if argv is None:
        keep_freed_memory()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with reader_may_leave():
            if arguments and arguments[0] in CONFIG_COMMANDS:
                return CONFIG_COMMANDS[arguments[0]].run(arguments[1:])
            options = _parser().parse_args(arguments)
            return options.run(options)
    except UsageError as error:
        print(f"senet-jax: error: {error}", file=sys.stderr)
        return BAD_INPUT


def _report_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    # Where a write fails, Orbax ends the event loop to which TensorStore then reports the others.
    if not (kind is RuntimeError and str(error) == "Event loop is closed"):
        sys.__excepthook__(kind, error, trace)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="senet-jax", description=summary)
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
        own.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
