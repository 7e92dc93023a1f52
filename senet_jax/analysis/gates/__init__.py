"""Inside the gates of a trained network."""
