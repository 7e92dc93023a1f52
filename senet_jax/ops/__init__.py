"""What every backbone shares: convolution, normalisation and pooling with explicit padding."""
