"""Policies: networks with spaces and statistics; their files."""
