"""Data sets that people already have: arrays, their function, sets of torchvision and of
Hugging Face.

`arrays`, `code`, `torchvision` and `hugging_face` are readers. What they find, images and labels in
many forms, becomes one form in `pixels`; `items` reads torch Datasets one image at a time, `shards`
parquet and Arrow files.

Imported by `data.catalogue`.
"""
