def test_jobs_run_on_nodes_of_their_own(slurm):
    assert sorted(slurm.run("srun", "-N3", "-n3", "hostname").split()) == ["n1", "n2", "n3"]
