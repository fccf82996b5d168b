"""An experiment and a dataset -> a run: trained weights, curves, and an honest evaluation."""
