"""The fields of networks and attentions that a user can set, each declared once.

A declaration holds a field's type, default, range (:class:`senet_jax.ranges.Range`) and
documentation, the string after it. The Linen modules and the descriptions of attentions inherit the
fields; the flags of the command line are made of them. A declaration has no methods: what inherits
it makes its own, and to make them twice takes time. Nothing here imports jax, so that ``--help``
answers at once.
"""
