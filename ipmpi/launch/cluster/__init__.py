"""The life of a cluster: its controller and its engines, started, watched, started again and stopped."""
