"""Drawing results: tables, plots, and the page of a run."""
