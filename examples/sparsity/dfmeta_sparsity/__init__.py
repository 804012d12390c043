"""A record kind for dfmeta: how often each feature is exactly zero."""
