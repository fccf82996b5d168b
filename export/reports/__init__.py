"""Pages to look at: of a dataset, of a run, of several runs."""
