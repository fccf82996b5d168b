"""Holds a dataset to its manifest: every record's checksum, the counts, and the files' SHA-256.

Examples:
  flexseg verify records
  flexseg verify s3://bucket/records --quiet && echo whole
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from flexseg_errors import FlexsegError
from pipelines import manifest as manifests

POSITIONAL = ("DATASET",)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags: it has none."""


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    folder = rest[0]
    problems = manifests.verify(folder)
    if problems:
        shown = "\n".join(f"  {p}" for p in problems)
        raise FlexsegError(
            f"{folder} is not as it was made; run `flexseg prepare` again to mend it:\n{shown}"
        )
    splits = manifests.load(folder).splits.values()
    count, files = sum(s.examples for s in splits), sum(len(s.shards) for s in splits)
    print(f"{folder}: {count} records in {files} shards, all as they were made.")
