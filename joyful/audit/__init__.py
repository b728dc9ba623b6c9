"""Audits: the manifest of a report is checked, and runs that are drawn at random are trained again and compared.

command -> analysis.report_check (the manifest)
        -> retraining (runs of the trainer), programs (runs of other programs) -> comparison -> confidence
"""
