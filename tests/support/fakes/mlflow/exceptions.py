"""What MLflow raises."""


class MlflowException(Exception):  # noqa: N818
    """Anything."""
