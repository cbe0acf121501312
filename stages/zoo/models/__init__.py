"""One file a model. Each stands alone: libraries and `stages.common` only."""
