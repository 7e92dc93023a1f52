"""Operations that the backbones share: convolution, normalization, explicitly padded pooling."""
