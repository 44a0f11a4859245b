"""What surrounds a process: its launcher, rank, GPUs and walltime. Nothing here knows the rest of ipmpi."""
