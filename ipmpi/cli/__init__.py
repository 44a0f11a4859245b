"""The commands ipcontroller, ipengine and ipcluster (L5)."""
