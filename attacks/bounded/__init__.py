"""Attacks that look for the worst image within eps, one a file: `fgsm`, `pgd`, `apgd`, `square`.

They stand on `base`, `ball`, `objectives` and `arguments` and import no other attack. `build` names
them. Begin reading at `fgsm`.
"""
