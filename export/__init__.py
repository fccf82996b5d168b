"""A run -> things that serve and predict."""
