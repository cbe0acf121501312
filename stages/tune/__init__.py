"""From a search space to the best overrides of `build.model.*` and `train.*`."""
