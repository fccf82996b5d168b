"""Volumes segmented slice by slice, and what is shown of them."""
