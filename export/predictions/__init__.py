"""What `flexseg predict` is made of: items, networks that segment them, and what is written."""
