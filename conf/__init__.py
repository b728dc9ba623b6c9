"""The configuration of ``joyful train``: a folder for each group, a file for each choice."""
