"""Live tracking of a run and alerts about it, by the process that runs the command: never on a worker's step path."""
