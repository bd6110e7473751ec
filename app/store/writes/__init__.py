"""Bulk writes of facts: plain tuples, never ORM rows; the caller's transaction makes a tick whole."""
