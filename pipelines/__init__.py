"""Pixels on disk -> TFRecords -> batches."""
