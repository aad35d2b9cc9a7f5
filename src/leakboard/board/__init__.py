"""Records, verdicts, tables, figures, report: what is shown of the trials."""
