"""Train: from a folder's splits and a model to a trained head. Frozen parts are run once."""
