"""Result rows of any origin: read strictly, judged again, ranked, compared, shown; see docs/results.md.

Pure but for :mod:`sotad.results.files`, which reads and writes files.
"""
