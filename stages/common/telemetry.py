"""Switches off what libraries would tell their makers, in every process that is started here."""

import os

# ONNX Runtime looks when it is imported, and then looks up a collector and keeps a store of events
# in the user's cache folder; Great Expectations and Prefect post over the network.
SWITCHES = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "WANDB_ERROR_REPORTING": "false",
}


def switch_off_telemetry() -> None:
    """Set the switches of all libraries, for this process and those that it starts.

    Must come before the libraries are imported. What the user's environment says is kept.
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
