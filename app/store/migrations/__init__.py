"""Alembic's migrations of the store. A file is named REVISION_what.py; revisions count up."""

HEAD = "0001"
"""The newest revision. Kept here so that a process can check the store without importing Alembic."""
