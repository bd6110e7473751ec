"""Carries alerts to people and to Alertmanager: what was decided is in the store, here it leaves the house."""
