"""Orchestration: git, DVC and the `reprise` command. Never imports torch."""
