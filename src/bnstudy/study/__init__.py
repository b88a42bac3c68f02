"""The study: its parameters, the reading of its runs, statistics, theory, claims and report. Imports no PyTorch."""
