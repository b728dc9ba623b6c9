"""The configuration of ``joyful train``: a folder per group, a file per choice."""
