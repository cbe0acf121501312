"""From a schema and a name to a model with its first weights."""
