"""Data on its way in: files to raw rows, raw rows to snapshots, tables to splits."""
