"""results.json from hand-made cells, put together as a run does it."""

from robustloss.analysis.tables.summary import summarise
from robustloss.results import write


def write_results(folder, *, name, provenance, cells, **more):
    """Write results.json; `more` are rows by table, beside those of the cells."""
    tables = write.collect_tables(cells, more)
    tables["summary"] = summarise(tables)
    return write.write_results(folder, name=name, provenance=provenance, tables=tables)
