"""Segmentation networks in Keras 3, and how to run one over an image larger than its input.

`registry.build` turns the name of an architecture and its knobs into a `keras.Model` from images
with values 0..255 to logits. Nothing here knows of files, label maps or training.
"""
