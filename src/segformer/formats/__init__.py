"""Checkpoint layouts of other projects: one table per file over the shared operations of ``layout``."""
