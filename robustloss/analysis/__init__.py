"""From stored files to the rows of results.json, without torch.

`tables.of_cell` makes the tables of a cell and `tables.of_run` those of a run: begin there. Below
them stand `detection` (scores, and how well they separate attacked images from clean ones) and
`checks` (which numbers could be an artefact of the attack); below these `outcomes`, what is kept of
an attacked pass. `learning` says which models have not learnt. `unfinished` opens a run folder
whose run has not ended. Imported are `metrics`, `spec` and `results`; cells, runs and reports
import this.
"""
