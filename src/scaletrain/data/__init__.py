"""From raw dialogue dumps to packed token shards, and from shards to micro batches."""
