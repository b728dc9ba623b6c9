"""Documents made from the schema of the settings: a JSON schema for editors, and a reference page in Markdown.

Both come from `joyful.config` and `joyful.sweeper.settings`, so they have the ranges that a run is checked by.
`settings.json` is the output of ``joyful schema``, for editors that take a file. Nothing here imports torch, unless
members of other packages are asked for.
"""
