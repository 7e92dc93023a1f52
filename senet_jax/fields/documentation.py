"""The documentation of the fields of dataclasses: the string after a field in the source."""

import ast
import functools
import inspect
import itertools
import sys


def documentation(declaration: type, field: str) -> str:
    """The documentation of a field, in one line; "" if it has none.

    Args:
        declaration: A dataclass.
        field: The name of a field of its own or of a class that it inherits from.
    """
    described = declaration.__dataclass_fields__[field].metadata.get("help")  # type: ignore[attr-defined]
    if described is not None:
        return described
    for each in declaration.__mro__:
        text = _strings(each.__module__).get(each.__name__, {}).get(field)
        if text is not None:
            return " ".join(text.split())
    return ""


@functools.cache
def _strings(module: str) -> dict[str, dict[str, str]]:
    """The strings after the fields of a module's classes, by class and field."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # Python itself is no file.
        return {}
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {
        node.name: {
            field.target.id: after.value.value
            for field, after in itertools.pairwise(node.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        }
        for node in classes
    }
