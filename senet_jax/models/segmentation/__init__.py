"""Networks of semantic segmentation: a head of four on any backbone of the zoo."""
