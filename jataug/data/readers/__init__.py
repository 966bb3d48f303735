"""Readers of files and rows: images, arrays, tables, tar members, sets of shards."""
