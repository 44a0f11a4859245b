"""Starting controllers and engines: pure argv builders and the processes that run them (L4)."""
