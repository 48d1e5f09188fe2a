"""A run: its loop, its checkpoints, its folder and its processes."""
