"""The pages of ``--help``: the first fits a screen, and ``--help TOPIC`` shows the others."""

import dataclasses
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from senet_jax.command_line.arguments import Flags
from senet_jax.errors import choose
from senet_jax.fields.documentation import documentation

HELP = ("-h", "--help")

LONGEST = 100
"""Most characters of a line."""

ALL, GENERAL = "all", "general"
"""The topic of all flags, and that of the flags of a config that no group of fields holds."""


@dataclasses.dataclass(frozen=True)
class Topic:
    """A page of help besides the first."""

    about: str
    """The line that the first page has about it."""
    text: str = ""
    """The text of the page, after its flags."""
    declare: Callable[[Flags], None] | None = None
    """Declares the flags of the page, of a command that argparse reads."""


@dataclasses.dataclass(frozen=True)
class Description:
    """The texts in the help of a program with a flag for each field of a config."""

    summary: str
    """The first lines."""
    examples: str = ""
    """The examples of the first page."""
    common: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The flags of the first page with a short text each; if {}, those of the topic "general"."""
    topics: Mapping[str, Topic] = dataclasses.field(default_factory=dict)
    """Texts by topic. That of a group of fields follows its flags."""


@dataclasses.dataclass(frozen=True)
class Flag:
    """The flag of a field."""

    name: str
    """Such as "--data.batch-size"."""
    value: str
    """The kind of value that it takes; "" if none."""
    default: str
    """The value that the field has without the flag; "" if it is an empty tuple."""
    owner: type
    """The dataclass of the field."""
    field: str
    """The name of the field in it."""

    @property
    def text(self) -> str:
        """The documentation of the field, which is read from the source of its class."""
        return documentation(self.owner, self.field).replace("``", "`")

    def __str__(self) -> str:
        if self.value:
            return f"{self.name} {self.value}"
        group, dot, name = self.name.removeprefix("--").rpartition(".")
        return f"{self.name}, --{group}{dot}no-{name}"

    @property
    def short(self) -> str:
        """The flag with its kind of value as the first page has it."""
        value = self.value.removesuffix("|None")
        if len(value) > 20:
            value = self.name.rpartition(".")[2].strip("-").upper()
        return f"{self.name} {value}".strip()

    @property
    def note(self) -> str:
        """The default, in parentheses."""
        return f" (default: {self.default})" if self.default else ""


@dataclasses.dataclass(frozen=True)
class Group:
    """The flags of the fields of a config, without those of the configs in it."""

    about: str
    """The documentation of the config."""
    flags: list[Flag] = dataclasses.field(default_factory=list)


def width() -> int:
    """Characters of a line: those of the terminal, at most ``LONGEST``."""
    return max(60, min(LONGEST, shutil.get_terminal_size().columns))


def asked_topic(arguments: Sequence[str]) -> str | None:
    """The topic that the arguments ask help for: "" for the first page, None for no help."""
    for index, argument in enumerate(arguments):
        name, _, topic = argument.partition("=")
        if name in HELP:
            after = arguments[index + 1 : index + 2]
            return topic or "".join(word for word in after if not word.startswith("-"))
    return None


def config_page(
    topic: str, prog: str, positional: str, description: Description, default: Any
) -> str:
    """A page of the help of a program with a flag for each field of a config.

    Args:
        topic: A topic; "" for the first page.
        prog: The name of the program.
        positional: The words before the flags.
        description: The texts.
        default: The config, or what holds it, that the flags change.

    Raises:
        UsageError: An unknown topic.
    """
    groups, topics = groups_of(default), description.topics
    others = {name: row for name, row in topics.items() if name not in groups}
    if topic:
        choose("topic of --help", topic, {*groups, *others, ALL})
    if topic in others:
        return others[topic].text
    if topic:
        names = list(groups) if topic == ALL else [topic]
        pages = [
            f"{_long(name, groups[name])}{_after(topics[name]) if name in topics else ''}"
            for name in names
        ]
        return "\n\n".join([*pages, *(row.text for row in others.values() if topic == ALL)])
    by_name = {flag.name: flag for group in groups.values() for flag in group.flags}
    common = dict(description.common)
    if not common:
        common = {flag.name: _first_clause(flag.text) for flag in groups[GENERAL].flags}
    some = len(common) < len(by_name)
    more = [(name, row.about) for name, row in others.items()]
    if some:
        more.append(("GROUP", f"the flags of {', '.join(groups)}"))
        more.append((ALL, f"all {len(by_name)} flags"))
    flags = [(by_name[name], text) for name, text in common.items()]
    rows = [
        (flag.short, text if flag.default == "None" else f"{text}{flag.note}".strip())
        for flag, text in flags
    ]
    parts = [
        " ".join(filter(None, ("usage:", prog, positional, "[FLAGS]"))),
        description.summary,
        description.examples,
        f"{'some of the flags' if some else 'flags'}:\n{_columns(rows)}",
        more_help(more),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def more_help(topics: Sequence[tuple[str, str]]) -> str:
    """The last lines of the first page: the topics, each with a line about it."""
    rows = [(f"--help {name}", about) for name, about in topics]
    return f"more help:\n{_columns(rows, 26)}" if rows else ""


def groups_of(default: Any) -> dict[str, Group]:
    """The flags of a config, or of what holds it, by their groups: "general", "data", ..."""
    found: dict[str, Group] = {}

    def add(config: Any, group: str) -> None:
        kinds = typing.get_type_hints(type(config))
        about = (type(config).__doc__ or "").partition("\n\n")[0]
        row = found.setdefault(group or GENERAL, Group(" ".join(about.split())))
        inner = []
        for field in dataclasses.fields(config):
            value, kind = getattr(config, field.name), kinds[field.name]
            if dataclasses.is_dataclass(value):
                inner.append((value, field.name))
                continue
            flag = Flag(
                name="--" + f"{group}.{field.name}".strip(".").replace("_", "-"),
                value="" if kind is bool else _value(kind),
                default=_typed(value),
                owner=type(config),
                field=field.name,
            )
            row.flags.append(flag)
        for value, name in inner:
            # The flags of an invocation's config have no prefix.
            add(value, group if name == "config" else f"{group}.{name}".strip("."))

    add(default, "")
    return found


def _value(kind: Any) -> str:
    """The values that a type allows, in short."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _value(inner[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys("None" if x is types.NoneType else _value(x) for x in inner))
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return f"{_value(inner[0])} ..." if ... in inner else " ".join(map(_value, inner))
    if kind is bool:
        return "True|False"
    return {int: "INT", float: "FLOAT", str: "TEXT"}.get(kind, "PATH")


def _typed(value: Any) -> str:
    """A value as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _first_clause(text: str) -> str:
    return re.split(r"[.:;](?=\s|$)", text, maxsplit=1)[0]


def _after(topic: Topic) -> str:
    return f"\n\n{topic.text}" if topic.text else ""


def _columns(rows: Sequence[tuple[str, str]], left: int = 36) -> str:
    """Lines of a name and its text; a name that is too long has lines of its own."""
    lines = []
    for name, text in rows:
        after = textwrap.wrap(text, width() - left)
        if len(name) <= left - 4:
            first = after.pop(0) if after else ""
            lines.append(f"  {name:<{left - 2}}{first}".rstrip())
        else:
            lines += _flag_lines(name)
        lines += [" " * left + line for line in after]
    return "\n".join(lines)


def _long(name: str, group: Group) -> str:
    """The flags of a group with all of their documentation."""
    lines = ["general flags:" if name == GENERAL else f"flags of {name}. {group.about}"]
    for flag in group.flags:
        lines += _flag_lines(str(flag))
        text = f"{flag.text}{flag.note}".strip()
        lines += [" " * 6 + line for line in textwrap.wrap(text, width() - 6)]
    return "\n".join(lines)


def _flag_lines(flag: str) -> list[str]:
    """The lines of a flag and its kind of value; many choices are broken after a "|"."""
    spread = flag.replace("|", "| ")
    lines = textwrap.wrap(
        f"  {spread}", width() - 8, subsequent_indent=" " * 4, break_on_hyphens=False
    )
    return [line.replace("| ", "|") for line in lines]
