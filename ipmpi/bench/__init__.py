"""``python -m ipmpi.bench``: measures a cluster on this machine against the goals and other systems (layer L5)."""
