"""Attacks that know the likelihood detector: fool the classifier and look typical at once.

`base` has the path that all of them climb; `gradients` and `matching` each add a rule for the next
step. They may import `bounded`; `build` names them. Begin reading at `base`.
"""
