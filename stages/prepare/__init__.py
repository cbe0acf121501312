"""From a raw table to split, encoded, memory-mapped arrays."""
