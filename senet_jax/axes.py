"""The axes of a mesh of devices."""

FSDP = "fsdp"

BATCH_AXES = ("data", FSDP)
"""The axes over which the images of a batch are sharded; parameters are sharded over ``FSDP``."""
