"""Live profiles of a running server: one trace for each stage, at the shape of the scenario that is slow."""
