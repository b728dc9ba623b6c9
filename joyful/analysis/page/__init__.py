"""The page of a sweep: findings turned into words, tables and figures (`sections`, `summary`), then HTML and Markdown.

Nothing here computes: numbers come from `joyful.analysis.findings`, figures from `joyful.analysis.plots`.
"""
