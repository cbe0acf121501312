"""Names that a server, its worker and a run agree on."""

POOL = "reprise"
# In a worker's environment: the repository in which it starts every run (`prefect.yaml`).
BASE = "REPRISE_BASE"
