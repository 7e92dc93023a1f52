"""Evaluation graphs as ONNX: the primitives that the networks trace to, one rule each.

Why not a converter that there is: jax2onnx 0.13 drops the padding of Flax's pools without a word
and refuses pools of four dimensions; the way over TensorFlow needs a TensorFlow, and its tf2onnx
asks for a NumPy of the past.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core

from senet_jax.errors import UsageError
from senet_jax.ops.conv_lowering import lowering

OPSET, IR_VERSION = 18, 9
"""Versions of the operators and of the file that every runtime of the last years reads."""

INPUT, OUTPUT = "images", "logits"
"""Names of the input, and of the output of a function that has one."""

Dim = Any
"""A number of pixels or channels, or JAX's symbol for the batch."""


@dataclasses.dataclass(frozen=True)
class _Value:
    """A tensor of the graph, or a constant that is not in it yet.

    Its shape may have ones where JAX's has more: ONNX broadcasts by itself.
    """

    shape: tuple[Dim, ...]
    name: str = ""
    array: np.ndarray | None = None


def to_onnx(
    function: Callable[[jax.Array], jax.Array | dict[str, jax.Array]], images: jax.ShapeDtypeStruct
) -> onnx.ModelProto:
    """Converts a function of images, traced for a batch of any size.

    Args:
        function: The function to convert: of one array, to one array or to several by name, which
            are then the names of the outputs.
        images: Shape of the images; the first dimension may be ``jax.export``'s symbol.

    Raises:
        UsageError: The function computes something that there is no rule for.
    """
    # The runtime has its own ways with convolutions: it is given them whole.
    with lowering("native"):
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(images)
    graph = _Graph()
    source = _Value(tuple(images.shape), name=INPUT)
    results = _convert(graph, closed.jaxpr, closed.consts, [source])
    # jax sorts the leaves of a dictionary.
    names = sorted(outputs) if isinstance(outputs, dict) else [OUTPUT]
    shapes = [_shape(variable) for variable in closed.jaxpr.outvars]
    for name, result, shape in zip(names, results, shapes, strict=True):
        graph.add("Identity", [graph.full(result, shape)], shape, name=name)

    def info(name: str, shape: Sequence[Dim]) -> onnx.ValueInfoProto:
        dims = [dim if isinstance(dim, int) else "batch" for dim in shape]
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

    return onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "senet_jax",
            [info(INPUT, images.shape)],
            [info(name, shape) for name, shape in zip(names, shapes, strict=True)],
            initializer=graph.initializers,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="senet_jax",
    )


class _Graph:
    """The nodes and constants so far."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(
        self,
        op: str,
        inputs: Sequence[_Value],
        shape: Sequence[Dim],
        *,
        name: str = "",
        **attributes: Any,
    ) -> _Value:
        """Adds a node of one output."""
        return self.add_all(op, inputs, [shape], name=name, **attributes)[0]

    def add_all(
        self,
        op: str,
        inputs: Sequence[_Value],
        shapes: Sequence[Sequence[Dim]],
        *,
        name: str = "",
        **attributes: Any,
    ) -> list[_Value]:
        """Adds a node; gives its outputs."""
        stem = name or f"{op}_{len(self.nodes)}"
        outputs = [stem if len(shapes) == 1 else f"{stem}.{i}" for i in range(len(shapes))]
        names = [self.name(value) for value in inputs]
        self.nodes.append(onnx.helper.make_node(op, names, outputs, name=stem, **attributes))
        return [_Value(tuple(s), name=o) for o, s in zip(outputs, shapes, strict=True)]

    def name(self, value: _Value) -> str:
        """Name of a value, which becomes part of the graph if it was a constant."""
        if value.array is None:
            return value.name
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value.array), name))
        return name

    def full(self, value: _Value, shape: Sequence[Dim]) -> _Value:
        """The value with all the dimensions that JAX gives it."""
        if tuple(value.shape) == tuple(shape):
            return value
        if value.array is not None and _static(shape):
            return _constant(np.broadcast_to(value.array, shape))
        batch = self.add("Shape", [_Value((), name=INPUT)], (1,), start=0, end=1)
        sizes = [_integers(dim) if isinstance(dim, int) else batch for dim in shape]
        return self.add("Expand", [value, self.add("Concat", sizes, (), axis=0)], shape)

    def transpose(self, value: _Value, perm: Sequence[int]) -> _Value:
        """The value with its axes in another order."""
        perm = [int(axis) for axis in perm]
        if perm == sorted(perm):
            return value
        if value.array is not None:
            return _constant(value.array.transpose(perm))
        return self.add("Transpose", [value], [value.shape[axis] for axis in perm], perm=perm)

    def reshape(self, value: _Value, shape: Sequence[Dim]) -> _Value:
        """The value in another shape, of which one dimension may be the batch."""
        if value.array is not None and _static(shape):
            return _constant(value.array.reshape(tuple(shape)))
        return self.add("Reshape", [value, _integers(*_sizes(shape))], shape)


def _constant(array: Any) -> _Value:
    array = np.asarray(array)
    return _Value(array.shape, array=array)


def _integers(*numbers: int) -> _Value:
    return _constant(np.array(numbers, np.int64))


def _shape(atom: Any) -> tuple[Dim, ...]:
    """The shape that JAX gives a variable or literal."""
    return tuple(atom.aval.shape)


def _static(shape: Sequence[Dim]) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def _sizes(shape: Sequence[Dim]) -> list[int]:
    """The dimensions with -1 for the batch, as ONNX's Reshape wants them."""
    return [dim if isinstance(dim, int) else -1 for dim in shape]


def _convert(
    graph: _Graph, jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[_Value]
) -> list[_Value]:
    """Adds what a jaxpr computes to a graph."""
    env: dict[Any, _Value] = dict(zip(jaxpr.constvars, map(_constant, consts), strict=True))
    env.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> _Value:
        return _constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        inner = [p for p in eqn.params.values() if isinstance(p, core.ClosedJaxpr | core.Jaxpr)]
        rule = RULES.get(eqn.primitive.name)
        # Expansions stay lazy, also those of constants.
        if all(v.array is not None for v in values) and rule is not _broadcast_in_dim:
            results = _fold(eqn, values)
        elif inner:
            results = _convert(graph, *_body(inner[0]), values)
        elif rule is not None:
            result = rule(graph, eqn, *values)
            results = result if isinstance(result, list) else [result]
        else:
            raise UsageError(
                f"the network computes {eqn.primitive.name}, which has no rule for ONNX: export it "
                "as stablehlo."
            )
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _body(inner: core.ClosedJaxpr | core.Jaxpr) -> tuple[core.Jaxpr, Sequence[Any]]:
    return (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())


def _fold(eqn: core.JaxprEqn, values: Sequence[_Value]) -> list[_Value]:
    """The value of an equation of constants."""
    arrays: Sequence[Any] = [value.array for value in values]
    if eqn.primitive.name in ELEMENTWISE:
        arrays = np.broadcast_arrays(*arrays)
    else:
        arrays = [np.broadcast_to(a, _shape(x)) for a, x in zip(arrays, eqn.invars, strict=True)]
    results = eqn.primitive.bind(*map(jnp.asarray, arrays), **eqn.params)
    return [_constant(r) for r in (results if eqn.primitive.multiple_results else [results])]


def _broadcast(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """Shape of what ONNX makes of operands of these shapes, which have one length."""
    return tuple(
        next((dim for dim in dims if not (isinstance(dim, int) and dim == 1)), 1)
        for dims in zip(*shapes, strict=True)
    )


def _elementwise(op: str) -> Callable[..., _Value]:
    def rule(graph: _Graph, eqn: core.JaxprEqn, *values: _Value) -> _Value:
        return graph.add(op, values, _broadcast(*_ranked(values)))

    return rule


def _ranked(values: Sequence[_Value]) -> list[tuple[Dim, ...]]:
    """Shapes of operands with the scalars among them as ones."""
    rank = max(len(value.shape) for value in values)
    return [(1,) * (rank - len(value.shape)) + tuple(value.shape) for value in values]


def _rsqrt(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    return graph.add("Reciprocal", [graph.add("Sqrt", [x], x.shape)], x.shape)


def _square(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    return graph.add("Mul", [x, x], x.shape)


def _integer_pow(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    return graph.add("Pow", [x, _constant(np.float32(eqn.params["y"]))], x.shape)


def _select(
    graph: _Graph, eqn: core.JaxprEqn, which: _Value, false: _Value, true: _Value
) -> _Value:
    operands = [which, true, false]
    return graph.add("Where", operands, _broadcast(*_ranked(operands)))


def _same(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    return x


def _convert_type(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"]))
    return graph.add("Cast", [x], x.shape, to=kind)


def _broadcast_in_dim(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    lengths: list[Dim] = [1] * len(eqn.params["shape"])
    for axis, length in zip(eqn.params["broadcast_dimensions"], x.shape, strict=True):
        lengths[axis] = length
    return x if tuple(lengths) == tuple(x.shape) else graph.reshape(x, lengths)


def _reshape(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    return graph.reshape(graph.full(x, _shape(eqn.invars[0])), _shape(eqn.outvars[0]))


def _squeeze(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    kept = [dim for axis, dim in enumerate(x.shape) if axis not in eqn.params["dimensions"]]
    return graph.reshape(x, kept)


def _transpose(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    return graph.transpose(x, eqn.params["permutation"])


def _concatenate(graph: _Graph, eqn: core.JaxprEqn, *values: _Value) -> _Value:
    whole = [graph.full(v, _shape(a)) for v, a in zip(values, eqn.invars, strict=True)]
    return graph.add("Concat", whole, _shape(eqn.outvars[0]), axis=int(eqn.params["dimension"]))


def _stack(graph: _Graph, eqn: core.JaxprEqn, *values: _Value) -> _Value:
    axis, shape = int(eqn.params["axis"]), _shape(eqn.outvars[0])
    layer = (*shape[:axis], 1, *shape[axis + 1 :])
    whole = [
        graph.reshape(graph.full(v, _shape(a)), layer)
        for v, a in zip(values, eqn.invars, strict=True)
    ]
    return graph.add("Concat", whole, shape, axis=axis)


def _split(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> list[_Value]:
    x = graph.full(x, _shape(eqn.invars[0]))
    sizes = _integers(*(int(size) for size in eqn.params["sizes"]))
    shapes = [_shape(var) for var in eqn.outvars]
    return graph.add_all("Split", [x, sizes], shapes, axis=int(eqn.params["axis"]))


def _pad(graph: _Graph, eqn: core.JaxprEqn, x: _Value, value: _Value) -> _Value:
    config = eqn.params["padding_config"]
    if any(interior for _, _, interior in config):
        raise UsageError("the network pads between pixels, which has no rule for ONNX.")
    pads = _integers(*(low for low, _, _ in config), *(high for _, high, _ in config))
    x = graph.full(x, _shape(eqn.invars[0]))
    return graph.add("Pad", [x, pads, value], _shape(eqn.outvars[0]))


def _slice(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(starts)
    x = graph.full(x, _shape(eqn.invars[0]))
    axes = [axis for axis, end in enumerate(ends) if isinstance(end, int)]
    operands = [_integers(*(int(spec[axis]) for axis in axes)) for spec in (starts, ends, steps)]
    operands.insert(2, _integers(*axes))
    return graph.add("Slice", [x, *operands], _shape(eqn.outvars[0]))


def _reduce(op: str) -> Callable[..., _Value]:
    def rule(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
        axes = _integers(*eqn.params["axes"])
        x = graph.full(x, _shape(eqn.invars[0]))
        return graph.add(op, [x, axes], _shape(eqn.outvars[0]), keepdims=0)

    return rule


def _conv(graph: _Graph, eqn: core.JaxprEqn, x: _Value, kernel: _Value) -> _Value:
    params, dims = eqn.params, eqn.params["dimension_numbers"]
    if any(step != 1 for step in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise UsageError("the network has a transposed convolution, which has no rule for ONNX.")
    out = _shape(eqn.outvars[0])
    x = graph.transpose(graph.full(x, _shape(eqn.invars[0])), dims.lhs_spec)
    result = graph.add(
        "Conv",
        [x, graph.transpose(kernel, dims.rhs_spec)],
        [out[axis] for axis in dims.out_spec],
        strides=list(params["window_strides"]),
        pads=_pads(params["padding"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return graph.transpose(result, np.argsort(dims.out_spec).tolist())


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    return [int(low) for low, _ in padding] + [int(high) for _, high in padding]


def _pool(op: str, **attributes: Any) -> Callable[..., _Value]:
    def rule(graph: _Graph, eqn: core.JaxprEqn, x: _Value) -> _Value:
        params, out = eqn.params, _shape(eqn.outvars[0])
        window = params["window_dimensions"]
        plain = all(step == 1 for step in (*params["base_dilation"], *params["window_dilation"]))
        if len(window) != 4 or window[0] != 1 or window[3] != 1 or not plain:
            raise UsageError("the network pools over more than pixels, which ONNX has no rule for.")
        x = graph.transpose(graph.full(x, _shape(eqn.invars[0])), (0, 3, 1, 2))
        pooled = graph.add(
            op,
            [x],
            [out[axis] for axis in (0, 3, 1, 2)],
            kernel_shape=list(window[1:3]),
            strides=list(params["window_strides"][1:3]),
            pads=_pads(params["padding"][1:3]),
            **attributes,
        )
        pooled = graph.transpose(pooled, (0, 2, 3, 1))
        if op == "AveragePool":
            pooled = graph.add("Mul", [pooled, _constant(np.float32(math.prod(window)))], out)
        return pooled

    return rule


def _dot_general(graph: _Graph, eqn: core.JaxprEqn, a: _Value, b: _Value) -> _Value:
    (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names_a = [next(letters) for _ in a.shape]
    shared = dict(zip((*contract_b, *batch_b), (*contract_a, *batch_a), strict=True))
    names_b = [
        names_a[shared[axis]] if axis in shared else next(letters) for axis in range(len(b.shape))
    ]
    free_a = [n for i, n in enumerate(names_a) if i not in (*contract_a, *batch_a)]
    free_b = [n for i, n in enumerate(names_b) if i not in shared]
    out = [names_a[axis] for axis in batch_a] + free_a + free_b
    whole = [graph.full(v, _shape(x)) for v, x in zip((a, b), eqn.invars, strict=True)]
    equation = f"{''.join(names_a)},{''.join(names_b)}->{''.join(out)}"
    return graph.add("Einsum", whole, _shape(eqn.outvars[0]), equation=equation)


ELEMENTWISE: dict[str, Callable[..., _Value]] = {
    **{
        name: _elementwise(op)
        for name, op in {
            "add": "Add",
            "sub": "Sub",
            "mul": "Mul",
            "div": "Div",
            "max": "Max",
            "min": "Min",
            "neg": "Neg",
            "exp": "Exp",
            "tanh": "Tanh",
            "sqrt": "Sqrt",
            "logistic": "Sigmoid",
        }.items()
    },
    "rsqrt": _rsqrt,
    "square": _square,
    "integer_pow": _integer_pow,
    "select_n": _select,
}

RULES: dict[str, Callable[..., _Value | list[_Value]]] = {
    **ELEMENTWISE,
    "stop_gradient": _same,
    "convert_element_type": _convert_type,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "pad": _pad,
    "slice": _slice,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "conv_general_dilated": _conv,
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool", count_include_pad=1),
    "dot_general": _dot_general,
}
"""The function that writes each primitive, by its name."""
