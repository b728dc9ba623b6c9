"""Notebooks and claims files to copy and edit, and the commands' earlier names. The code is in :mod:`joyful.analysis`."""
