"""Tasks for whatever engine is free: TaskClient and its parts."""
