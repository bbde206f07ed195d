"""Serving: a release, the replica that answers for it, and how it goes live."""
