"""Scores of records, and how well they separate attacked images from clean ones.

`scores` lists the scores, `compute` fits them and scores every pass of a cell, `separation` turns
scores into numbers, `adaptive` judges attacks that know the detector.
"""
