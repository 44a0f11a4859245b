"""The journal of a controller: what outlives the process, in one SQLite file (see docs, decision 0029).

``rows`` says what is kept, ``store`` keeps it.
"""
