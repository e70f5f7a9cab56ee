"""Networks: backbones, the Classifier around them, models from elsewhere, weight files.

Begin with `classifier`, which is what is trained and attacked, then `build`, which makes one from
plain values: `backbones` and `backbones_colour` are its networks, `factories` calls a user's own,
`given` wraps a model that was trained elsewhere. `nearest_mean` is a head for any trained network,
`spectral` bounds its layers. `weight_files` reads and writes weights.

Imports `data`, `losses`, `attacks`, `spec`, `storage` and `run_files`; `training` and all above it
import this.
"""
