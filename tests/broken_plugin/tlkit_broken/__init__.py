"""A plugin that fails at import, as one does whose own dependency is missing."""

raise ImportError("broken on purpose: libnothing.so.1 is not there")
