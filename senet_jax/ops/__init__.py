"""What every backbone shares: convolution, normalization and pooling with explicit padding."""
