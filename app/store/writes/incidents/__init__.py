"""Incidents in the store: what is judged by app.incidents, kept with its timeline."""

from app.store.writes.incidents.refresh import IncidentChanges, refresh_incidents

__all__ = ["IncidentChanges", "refresh_incidents"]
