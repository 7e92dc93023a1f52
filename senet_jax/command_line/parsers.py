"""The parsers of the commands that argparse reads, and of `senet-jax` itself."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from senet_jax.command_line.help_pages import ALL, HELP, Topic, more_help, width
from senet_jax.errors import UsageError, choose
from senet_jax.text import printable


class _Parser(argparse.ArgumentParser):
    """Raises one sentence that says what is wrong, where argparse prints all options before."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{printable(message)}; see `{self.prog} --help`.")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of texts, and has room for the longer flags beside their help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=width())


class _Version(argparse.Action):
    """Prints the version, and those of the packages that decide what is computed."""

    def __call__(self, *_: Any) -> NoReturn:
        from importlib.metadata import version

        from senet_jax import __version__

        others = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax"))
        print(f"senet-jax {__version__} ({others})")
        sys.exit(0)


def main_parser(summary: str, commands: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of `senet-jax` without a command, which lists them.

    Args:
        summary: Its description.
        commands: The commands and what they do.
    """
    parser = _Parser(
        prog="senet-jax",
        description=summary,
        epilog="`senet-jax COMMAND --help` has examples and flags.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions, and exit")
    rows = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, text in commands.items():
        rows.add_parser(name, help=text)
    return parser


def command_parser(name: str, summary: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of a command.

    Args:
        name: The command.
        summary: What it does.
        module: Has ``EXAMPLES``, ``add_arguments`` and, if its help has several pages, ``TOPICS``.
    """
    topics: Mapping[str, Topic] = getattr(module, "TOPICS", {})
    parser = _empty_parser(name)
    parser.add_argument(*HELP, action=_help_action(name, summary, module, topics), nargs="?")
    module.add_arguments(parser)
    for topic in topics.values():
        if topic.declare:
            topic.declare(parser)
    return parser


def _empty_parser(name: str, description: str = "", epilog: str = "") -> _Parser:
    return _Parser(
        prog=f"senet-jax {name}",
        description=description,
        epilog=epilog,
        formatter_class=_Formatter,
        add_help=False,
    )


def _help_action(
    name: str, summary: str, module: ModuleType, topics: Mapping[str, Topic]
) -> type[argparse.Action]:
    """Prints a page of the help of a command."""

    class ShowHelp(argparse.Action):
        def __call__(
            self, _: Any, __: Any, topic: str | Sequence[Any] | None, ___: Any = None
        ) -> NoReturn:
            print(_page(str(topic or ""), name, summary, module, topics))
            sys.exit(0)

    return ShowHelp


def _page(
    topic: str, name: str, summary: str, module: ModuleType, topics: Mapping[str, Topic]
) -> str:
    """A page of the help of a command.

    Raises:
        UsageError: An unknown topic.
    """
    if topic:
        choose("topic of --help", topic, {*topics, ALL})
    if topic and topic != ALL:
        return _topic(name, topic, topics[topic])
    rows = [(key, row.about) for key, row in topics.items()]
    more = more_help([*rows, (ALL, "all of these")] if rows else [])
    epilog = f"{module.EXAMPLES}\n\n{more}"
    parser = _empty_parser(name, summary, epilog)
    parser.add_argument(*HELP, nargs="?", metavar="TOPIC", help="print this or a topic, and exit")
    module.add_arguments(parser)
    first = parser.format_help().strip()
    if topic != ALL:
        return first
    return "\n\n".join([first, *(_topic(name, key, row) for key, row in topics.items())])


def _topic(name: str, key: str, topic: Topic) -> str:
    """The page of a topic: its flags and its text."""
    parser = _empty_parser(name)
    parser.usage = argparse.SUPPRESS
    if topic.declare:
        topic.declare(parser.add_argument_group(f"{key}: {topic.about}"))
    flags = parser.format_help().strip()
    return "\n\n".join(filter(None, (flags, topic.text)))
