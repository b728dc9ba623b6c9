"""The page of a report: it presents findings as text, tables and figures, and renders them as HTML and Markdown.

This package computes no statistics. Numbers come from `joyful.analysis.findings`, figures from `joyful.analysis.plots`.
"""
