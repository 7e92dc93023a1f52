"""Changes of training images, on the host and on the device."""
