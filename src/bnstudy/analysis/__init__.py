"""What reads the runs: the statistics, the claims and their figures. Needs no PyTorch."""
