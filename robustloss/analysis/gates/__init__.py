"""Does a run keep what somebody asks of it? Begin with `judge.check`.

`verdict` is what comes of it, as text, JUnit XML and JSON; `metrics` are the names of the numbers
that a gate may ask for; `judge` holds a run against its gates.
"""
