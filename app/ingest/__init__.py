"""Ingest: takes agents' reports, writes them in bulk, and serves /v1."""
