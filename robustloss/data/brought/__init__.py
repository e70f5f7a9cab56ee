"""Data sets that people already have: arrays, their own function, the sets of torchvision.

`arrays`, `code` and `torchvision` are readers. What they find, images and labels in many forms,
becomes one form in `pixels`; `items` reads torch Datasets one image at a time.

Imported by `data.catalogue`.
"""
