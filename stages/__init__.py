"""The machine learning: one folder a stage, each started as `python -m stages.<name>`.

The folders below have no `__init__.py`: it would be a dependency of every stage, and hold nothing.
"""
