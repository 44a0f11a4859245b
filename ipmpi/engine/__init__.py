"""An engine: its namespace (L2), its MPI world and the rank's loop (L3), and the agent of its node (L4)."""
