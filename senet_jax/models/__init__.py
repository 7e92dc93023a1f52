"""The backbones: one file a family, and the zoo that names them."""
