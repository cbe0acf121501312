"""From a trained model and the test split to metrics, predictions and plots."""
