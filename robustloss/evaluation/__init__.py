"""A model over images: what it says of clean, attacked and changed images, as Records or arrays.

Begin with `passes.clean_record` and `attacked.attacked_records`. Nothing here knows of specs, files
or runs: a model and images come in, a Record or plain arrays go out.

May import `attacks`, `data`, `losses`, `models`, `metrics`, `results` and `seeding`; imported by
`cells`, and by `cli` for its estimate of the cost.
"""
