"""Notebooks and claims files to copy and edit, and earlier names of commands. The code is in :mod:`joyful.analysis`."""
