"""Attacks that look for the smallest change that fools the model, one a file.

`deepfool`, `fab`, `fmn` and `carlini_wagner` return each image's radius, whatever eps. They share
`boundaries`: the planes on which a linearised model changes its mind, and the nearest image so far.
`build` names them. Begin reading at `deepfool`.
"""
