"""The queue of tasks and which engine set gets which, without I/O."""
