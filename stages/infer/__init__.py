"""From a trained model and new rows to predictions."""
