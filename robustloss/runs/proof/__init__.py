"""Proof: is a run what it says, and what do images do to its models?

`verify` looks at a run: its files against each other (`files`), its tables against its records
(`rebuild`), its kept images against model and data (`outputs`); or at images of any origin against
a model of it (`brought`, which `image_input` reads). `export` writes kept images for others. Begin
with `verify.verify`; `findings` is what it returns.
"""
