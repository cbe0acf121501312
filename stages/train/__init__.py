"""From first weights to trained ones: the loop."""
