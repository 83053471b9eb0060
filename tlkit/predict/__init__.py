"""Predict: from a head file and images to probabilities. Works with `train` deleted."""
