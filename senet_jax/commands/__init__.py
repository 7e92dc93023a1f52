"""The commands of `senet-jax`, a file each; none imports jax before it runs."""
