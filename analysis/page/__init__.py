"""The page of a sweep: findings turned into words, tables and figures (`sections`, `summary`), then HTML and Markdown.

Nothing here computes: numbers come from `analysis.findings`, figures from `analysis.plots`.
"""
