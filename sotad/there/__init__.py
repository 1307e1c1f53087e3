"""Programs that run on the host of a campaign's servers, with what its Python brings along (3.9 or later).

They travel there as one zip file by digest, with the rest of our code, and are run from it:
``python -I -S sotad.zip MODULE ARGUMENTS``; see :mod:`sotad.activities.toolbox`.
"""
