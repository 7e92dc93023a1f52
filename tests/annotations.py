"""The checker of annotations at run time: beartype, by ``CHECK_ANNOTATIONS=1``."""

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

# An int is a float, as for static checkers.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """Checks the arguments and the result of every call of a function.

    Left as they are: functions with an annotation that cannot be checked, such as the constructor
    of Flax's ``Conv``, one of whose fields is a protocol.
    """
    try:
        return _beartype(function)
    except BeartypeDecorHintException:
        return function
