"""An engine: its namespace (L2), its MPI world and main loop (L3), and rank 0's link to the controller (L4)."""
