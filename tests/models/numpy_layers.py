"""Layers in evaluation, written out in NumPy on the variables of the real ones."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def relu(x):
    return np.maximum(x, 0)


def conv(x, params, stride=1):
    kernel = np.asarray(params["kernel"], np.float64)
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(padded, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    groups = x.shape[-1] // kernel.shape[2]
    parts = zip(np.split(windows, groups, 3), np.split(kernel, groups, 3), strict=True)
    return np.concatenate([np.einsum("nhwcij,ijco->nhwo", a, k) for a, k in parts], -1)


def norm(x, params, stats):
    x = (x - np.asarray(stats["mean"])) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    return x * np.asarray(params["scale"]) + np.asarray(params["bias"])


def squeeze_excite(x, params):
    reduce, expand = params["reduce"], params["expand"]
    hidden = relu(x.mean((1, 2)) @ np.asarray(reduce["kernel"]) + np.asarray(reduce["bias"]))
    gate = 1 / (1 + np.exp(-(hidden @ np.asarray(expand["kernel"]) + np.asarray(expand["bias"]))))
    return x * gate[:, None, None]
