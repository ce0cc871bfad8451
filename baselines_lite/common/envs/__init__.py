"""Environments: made from ids, vectorised, checked, counted, recorded."""
