"""``python -m benchmarks``: measures ipmpi and other systems with the same work, on one machine.

Not installed with ipmpi; run it in a checkout.
"""
