"""Configs of older projects, INI files of two dialects, and what they become here."""

from train.old_config.conversion import (
    Conversion,
    convert,
    experiment_text,
    load_experiment,
    texts,
)

__all__ = ["Conversion", "convert", "experiment_text", "load_experiment", "texts"]
