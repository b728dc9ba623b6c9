"""Claims files, which define what a report judges. Copy one, edit it, and pass it to ``joyful report --claims FILE``."""
