"""The cluster: its file, the cloud account behind it, and the jobs that run on it."""
