"""``python -m ipmpi.bench``: measures a cluster, yours or one on this machine, against the goals."""
