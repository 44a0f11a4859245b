"""The life of a cluster: start, monitoring, restart and stop of its controller and engines."""
