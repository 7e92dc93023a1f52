"""The checker of annotations at run time: beartype, by ``CHECK_ANNOTATIONS=1``."""

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype

# A function of JAX's arrays takes NumPy's, too, and one that reads a shape alone takes a
# shape. Modules import the name from here on.
jaxtyping.Array = jax.Array | np.ndarray | jax.ShapeDtypeStruct

# An int is a float, as for static checkers.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """Checks the arguments and the result of every call of a function.

    Constructors are left as they are: they refuse a wrong field by an error of their own.
    """
    return function if function.__name__ == "__init__" else _beartype(function)
