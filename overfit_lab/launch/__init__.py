"""Launching: from Hydra's jobs to runs, and what is said about them on the way."""
