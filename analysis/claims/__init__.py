"""Claims files: what a report judges. Copy one and edit it; ``joyful report --claims FILE`` takes it."""
