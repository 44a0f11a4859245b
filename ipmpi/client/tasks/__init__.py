"""Tasks that run on any free engine: TaskClient and its parts."""
