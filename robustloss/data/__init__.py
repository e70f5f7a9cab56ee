"""Images as uint8 tensors, from where they lie to the sets that a run uses.

Begin at `load.load_dataset`: a reader reads the files (`reader`; `digits`, `mnist`, `cifar`,
`folders/`, `brought/`), `splits.cut` chooses the images, and a `Dataset` of three `ImageSet`s comes
out (`images`). `catalogue` finds the reader of every name. `archives` reads tar archives. `outside`
loads the images of the tables [[outside]], `shifts` those of [[shifts]].

A new data set is a reader, its entry in the catalogue, its line in `spec.data`.

Imports `spec`, `storage`, `seeding`, `notation`, and of `attacks` what loads others' code. Imported
by whatever sees images: `models`, `training`, `evaluation`, `cells`, `runs` and `cli`.
"""
