"""From a model with random weights to a trained one.

Begin with `train`, the flat loop over epochs and steps, then `loop`, one step. What a step needs
stands beside it: `batches` and `augment` (which images, moved how), `objective` (images to loss),
`adversary` (adversarial training), `optimizer` (rates over time), `precision`, `captured_step` (on
a GPU a step is replayed). `checkpoint` keeps a training that was killed, `selection` chooses an
epoch, `processes` and `shared_batch` let several processes share one training.

Imports `data`, `losses`, `models`, `attacks`, `spec`, `storage` and `seeding`.
`cells` and all above it import this.
"""
