"""Detectors: Faster and Mask R-CNN with a feature pyramid on any backbone of the zoo."""
