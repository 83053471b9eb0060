"""Data: from a folder to batches of pixels. Knows the contract's `InputSpec`, never a model."""
