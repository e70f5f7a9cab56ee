"""Checks of the numbers: which of them could be an artefact of the attack?"""
